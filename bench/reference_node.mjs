// The unmodified reference peer as an introducer, for comparison.
//   node reference_node.mjs REFERENCE_DIR ADDRESS PORT [CACHE_FILL]
// CACHE_FILL full packets are put into its cache at start (6604 fill it). Ends on SIGTERM, or by itself after ten minutes.
import { randomBytes } from 'node:crypto'
import { pathToFileURL } from 'node:url'

const [dir, address, port, fill = '0'] = process.argv.slice(2)
const { Peer, PacketPublish, Packet, makeDgram } = await import(pathToFileURL(dir + '/load.mjs').href)

// One malformed packet ends a plain Node process that runs the reference.
const faults = { exceptions: 0 }
process.on('uncaughtException', () => { faults.exceptions++ })
process.on('unhandledRejection', () => { faults.exceptions++ })

const peer = new Peer({
  peerId: randomBytes(32).toString('hex'), indexed: true, natType: 31, address, port: Number(port)
}, makeDgram({ address }))
peer.peers = []
for (let i = 0; i < Number(fill); i++) {
  const id = () => randomBytes(32)
  const packet = new PacketPublish({
    message: randomBytes(1024), clusterId: id(), subclusterId: id(), previousId: id(), packetId: id(), nextId: id(),
    usr1: id(), usr2: id(), usr3: id(), usr4: id(), sig: randomBytes(64), hops: 1
  })
  peer.cache.insert(packet.packetId.toString('hex'), Packet.decode(await Packet.encode(packet)))
}
await peer.init()
console.log(JSON.stringify({ ready: true, port: peer.port, cached: peer.cache.size }))
process.on('SIGTERM', () => { console.log(JSON.stringify(faults)); process.exit(0) })
setTimeout(() => process.exit(1), 600_000)
