// The loopback dgram of shims/dgram.mjs with a memory: every datagram that a peer is handed (after the imitated NAT, so
// what it really sees) is logged, and what the reference would refuse in silence is reported.
import { makeDgram, Packet } from './load.mjs'

const LOG_LIMIT = 50_000 // datagrams remembered for each peer

const isId = v => typeof v === 'string' && /^[0-9a-f]{64}$/.test(v)
const isHash = v => typeof v === 'string' && /^[0-9a-f]{40}$/.test(v)
const isPort = v => Number.isInteger(v) && v > 0 && v < 65536
const isNat = v => Number.isInteger(v) && v <= 31 && (v & 5) === 5
const isAddress = v => typeof v === 'string' && /^\d{1,3}(\.\d{1,3}){3}$/.test(v)
const isCount = v => Number.isFinite(v) && v >= 0
const isTrueOrFalse = v => typeof v === 'boolean'
const isPingId = v => typeof v === 'string' && /^[0-9a-fA-F]{12,13}$/.test(v)

// Every key that a message may have, checked whether or not another is there: the reference stops at the first absent one.
const KEYS = {
  requesterPeerId: isId,
  responderPeerId: isId,
  cacheSummaryHash: isHash,
  probeExternalPort: isPort,
  port: isPort,
  address: isAddress,
  reflectionId: isPingId,
  pingId: isPingId,
  natType: isNat,
  uptime: isCount,
  cacheSize: isCount,
  timestamp: isCount,
  isConnection: isTrueOrFalse,
  isReflection: isTrueOrFalse,
  isProbe: isTrueOrFalse,
  isDebug: isTrueOrFalse,
  isRendezvous: isTrueOrFalse,
  rejected: isTrueOrFalse,
  key: v => typeof v === 'string',
  rendezvousAddress: isAddress,
  rendezvousPort: isPort,
  rendezvousType: isNat,
  rendezvousPeerId: isId,
  rendezvousDeadline: isCount,
  rendezvousRequesterPeerId: isId
}
const REQUIRED = {
  1: ['requesterPeerId'],
  2: ['requesterPeerId', 'responderPeerId', 'cacheSummaryHash', 'uptime', 'cacheSize'],
  3: ['requesterPeerId', 'responderPeerId', 'natType', 'address', 'port'],
  4: ['requesterPeerId', 'natType', 'address', 'port']
}

// What is wrong with a ping, pong, intro or join of a node, by a stricter table than the reference's; null: nothing.
function fault ({ type, message }) {
  if (!(type in REQUIRED)) return null
  if (type === 2 && !message.isConnection && !('port' in message && 'address' in message)) return 'pong without the endpoint'
  for (const key of REQUIRED[type]) if (!(key in message)) return `no ${key}`
  for (const [key, value] of Object.entries(message)) if (!KEYS[key]?.(value)) return `${key}: ${JSON.stringify(value)}`
  return null
}

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
    const wrong = nodes.has(source) && fault(packet)
    if (wrong) onReport(`type ${packet.type} from ${source}: ${wrong} in ${JSON.stringify(packet.message)}`)
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
