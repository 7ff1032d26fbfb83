// Unmodified reference peers as introducers (indexed peers).
//
// start {listen: [{address, port, peerId}]}   -> up, when all listen; they know each other, as siblings of one network do
// stop                                        -> stopped
import { makeDgram, Peer, RemotePeer } from '../reference/load.mjs'
import { serve, tell } from './speak.mjs'

const runs = new Map()

serve({
  async start (id, { listen }) {
    const peers = listen.map(({ address, port, peerId }) => {
      const peer = new Peer({ peerId, address, port, natType: 31, indexed: true }, makeDgram({ address }))
      peer.peers = listen.filter(o => o.peerId !== peerId)
        .map(o => new RemotePeer({ ...o, natType: 31, indexed: true }, peer))
      peer.onConnection = () => {} // without it an introducer never starts a sync
      return peer
    })
    runs.set(id, peers)
    for (const peer of peers) await peer.init()
    tell(id, 'up')
  },

  async stop (id) {
    for (const peer of runs.get(id)) peer.close()
    runs.delete(id)
    tell(id, 'stopped')
  }
})
