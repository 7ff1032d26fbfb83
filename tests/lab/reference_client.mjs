// The unmodified reference peer as a client under test: an application that joins one subcluster through its API.
//
// start {introducers: [{address, port, peerId}], cluster, subcluster, keepAliveMs?}
//   -> up {peerId}, ready {natType, address, port}, then for each peer met: join {peerId, address, port, proxy}
// send {text}   to every peer met, through the streams of the API -> at the others: message {peerId, text, address, port},
//               where address and port are those of the datagram's source, so of the proxy if there is one
// stop          -> stopped
import { Buffer } from 'node:buffer'
import { randomBytes } from 'node:crypto'
import { api, events, makeDgram, Encryption, RemotePeer } from '../reference/load.mjs'
import { serve, tell } from './speak.mjs'

const EVENT = 'lab'
const runs = new Map()

serve({
  async start (id, { introducers, cluster, subcluster, keepAliveMs }) {
    const run = { peer: null, sub: null, sockets: [] }
    runs.set(id, run)
    const udp = makeDgram({ address: '0.0.0.0' })
    const dgram = {
      createSocket (type, none, peer) {
        // The peer's own list names public servers: it has to go before init() reads it.
        if (run.peer === null) {
          run.peer = peer
          peer.peers = introducers.map(o => new RemotePeer({ ...o, natType: 31, indexed: true }, peer))
        }
        const socket = udp.createSocket(type, none, peer)
        run.sockets.push(socket)
        return socket
      }
    }
    const peerId = randomBytes(32).toString('hex')
    const clusterId = await Encryption.createClusterId(cluster)
    const sharedKey = await Encryption.createSharedKey(subcluster)
    const signingKeys = await Encryption.createKeyPair()
    const options = { peerId, clusterId, signingKeys, worker: false, ...(keepAliveMs ? { keepalive: keepAliveMs } : {}) }
    const bus = run.bus = await api(options, events, dgram)
    tell(id, 'up', { peerId })

    bus.on('#ready', ({ natType, address, port }) => tell(id, 'ready', { natType, address, port }))
    bus.on('#error', error => tell(id, 'error', { what: String(error) }))
    bus.on('#stream', async (packet, from, port, address) => {
      const scid = Buffer.from(packet.subclusterId).toString('base64')
      const opened = await run.peer.open(packet.message, scid)
      tell(id, 'message', { peerId: from.peerId, text: Buffer.from(opened).toString(), address, port })
    })
    run.sub = await bus.subcluster({ sharedKey })
    run.sub.on('#join', ({ peerId, _peer }) => {
      const { address, port, proxy } = _peer
      tell(id, 'join', { peerId, address, port, proxy: Boolean(proxy) })
    })
  },

  async send (id, { text }) {
    for (const peer of runs.get(id).sub.peers.values()) await peer.emit(EVENT, text)
  },

  async stop (id) {
    const { bus, sockets } = runs.get(id)
    runs.delete(id)
    bus?.close()
    for (const socket of sockets) {
      try { socket.close() } catch {} // bus.close() has closed two of them
    }
    tell(id, 'stopped')
  }
})
