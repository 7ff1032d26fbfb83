// An application's first step with the unmodified reference peer: becomes ready through the nodes on standard input.
//   srpnode info --json | node ready.mjs
import { networkInterfaces } from 'node:os'
import { text } from 'node:stream/consumers'

const nodes = JSON.parse(await text(process.stdin))
process.env.JSREF_NETS = nodes.map(node => `${node.address}/32`).join(',')
const { Peer, RemotePeer, Encryption, makeDgram } = await import('./load.mjs')

const ours = Object.values(networkInterfaces()).flat().map(item => item.address)
const address = nodes.every(node => ours.includes(node.address)) ? nodes[0].address : '0.0.0.0'
const peer = new Peer({
  peerId: await Encryption.createId(),
  clusterId: await Encryption.createClusterId('readme'),
  signingKeys: await Encryption.createKeyPair()
}, makeDgram({ address }))
peer.peers = nodes.map(node => new RemotePeer(node, peer))

const ready = new Promise(resolve => { peer.onReady = resolve })
const late = setTimeout(() => {
  console.error('not ready within 30 s: do the nodes run, are their ports open?')
  process.exit(1)
}, 30_000)
await peer.init()
const { address: seen, port, natType } = await ready
clearTimeout(late)
console.log(`ready: the nodes see us at ${seen}:${port}, NAT type ${natType}`)
process.exit(0)
