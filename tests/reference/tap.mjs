// The loopback dgram of shims/dgram.mjs with a memory: every datagram that a peer is handed (after the imitated NAT, so
// what it really sees) is logged, and what the reference would refuse in silence is reported.
import { makeDgram, Packet } from './load.mjs'

const LOG_LIMIT = 50_000 // datagrams remembered for each peer

// true when a JSON message holds a null anywhere: the reference's own table refuses null only where it looks
const holdsNull = value =>
  value === null || (typeof value === 'object' && Object.values(value).some(holdsNull))

// Options: those of makeDgram, and
//   nodes     "address:port" of the peers under test: what comes from them is held to a stricter standard
//   onReport  called with one line of text for each datagram that should not have come
export function makeTap (options) {
  const { nodes = new Set(), onReport } = options
  const inner = makeDgram(options)
  const log = []
  let made = 0
  let overflow = 0

  const note = (kind, data, from) => {
    if (log.length >= LOG_LIMIT) { overflow++; return }
    const source = `${from.address}:${from.port}`
    if (data.length === 1 && data[0] === 1) { // the opening byte of hole punching
      log.push({ socket: kind, from: source, type: 0 })
      return
    }
    const packet = Packet.decode(data)
    if (!packet) {
      log.push({ socket: kind, from: source, type: -1 })
      onReport(`undecodable datagram from ${source}: ${data.subarray(0, 1500).toString('hex')}`)
      return
    }
    const json = !ArrayBuffer.isView(packet.message)
    if (json && nodes.has(source) && packet.type !== 8 && holdsNull(packet.message)) {
      onReport(`null in a message from ${source}: ${JSON.stringify(packet.message)}`)
    }
    log.push({
      socket: kind,
      from: source,
      type: packet.type,
      hops: packet.hops,
      index: packet.index,
      clock: packet.clock,
      ttl: packet.ttl,
      packetId: packet.packetId.toString('hex'),
      clusterId: packet.clusterId.toString('hex'),
      subclusterId: packet.subclusterId.toString('hex'),
      message: json ? packet.message : packet.message.length
    })
  }

  return {
    stats: inner.stats,
    log,
    overflow: () => overflow,
    createSocket (type, unused, peer, index) {
      const socket = inner.createSocket(type, unused, peer, index)
      const kind = made === 0 ? 'main' : made === 1 ? 'probe' : 'pool'
      made++

      const emit = socket.emit.bind(socket)
      socket.emit = (name, ...args) => {
        if (name !== 'message') return emit(name, ...args)
        const before = inner.stats.received
        const result = emit(name, ...args)
        // A plain socket filters below this emit, a symmetric one above it.
        if (options.nat === 'symmetric' || inner.stats.received > before) note(kind, args[0], args[1])
        return result
      }

      // A peer that closes with packets still queued sends into a closed socket: not what is under test.
      const send = socket.send.bind(socket)
      const close = socket.close.bind(socket)
      let closed = false
      socket.send = (data, port, address, callback) => {
        if (!closed) return send(data, port, address, callback)
        if (callback) setImmediate(callback, null)
      }
      socket.close = (...args) => {
        if (closed) return
        closed = true
        return close(...args)
      }
      return socket
    }
  }
}
