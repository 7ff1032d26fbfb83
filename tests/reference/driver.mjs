// Hosts reference peers in one process. Reads requests from stdin, a JSON object on each line: {id, op, …}; answers on
// stdout with {id, result} or {id, error}; tells what happens meanwhile with {event, client, …}. Ends with stdin.
//
//   create     {client, kind: "api" | "peer", address, nat, cluster, peerId, nodes: [{address, port, peerId}],
//               keepAlive, port, preload: [hex], resume, blocked: [address]}   a client; resume: name of a closed client whose
//              saved state (ports, cache) it starts from, as a restarted application would; preload: packets for its cache
//   introducer {client, address, port, probePort, peerId, nodes, keepAlive}    a reference peer with the node's own job
//   join       {client, subcluster}                  also makes the client listen to #join there
//   listen     {client, subcluster, event}           api clients: opened events are told as {event: "message", …}
//   emit       {client, subcluster, event, data: base64, ttl} -> {packetIds}
//   stream     {client, subcluster, event, data, to: peerId} -> {packets}
//   query      {client, packetId}                    answers are told as {event: "answer", …}
//   pack       {cluster, subcluster, event, data, ttl} -> {datagrams: [hex]}   what a publisher would send, sent to nobody
//   open       {subcluster, data: hex} -> {data: hex}                          opens a sealed message
//   raw        {client, data: hex, port, address}    sends the bytes from the client's main socket
//   lie        {client, address, port}               from now on it claims to be there
//   forget     {client}                              empties the client's cache
//   info, peers, cache, log, stats  {client}         what the client is, knows, holds, was sent, counted
//   close      {client}
//   errors     {} -> [text]                          everything that must not happen in an honest peer
//
// cluster and subcluster are names; ids and keys derive from them as an application would derive them.
import { createInterface } from 'node:readline'
import { createHash } from 'node:crypto'
import { api, events, Peer, RemotePeer, Packet, Encryption, sha256 } from './load.mjs'
import { makeTap } from './tap.mjs'

const ERROR_LIMIT = 1000

const errors = []
const clients = new Map()
const saved = new Map() // name of a closed client -> its state

const say = object => process.stdout.write(JSON.stringify(object) + '\n')
const report = text => { if (errors.length < ERROR_LIMIT) errors.push(text) }

process.on('unhandledRejection', error => report(`unhandled rejection: ${error?.stack ?? error}`))
process.on('uncaughtException', error => report(`uncaught exception: ${error?.stack ?? error}`))
for (const name of ['warn', 'error', 'log', 'info']) {
  console[name] = (...args) => report(`console.${name}: ${args.map(a => a?.stack ?? String(a)).join(' ')}`)
}

const hex = value => Buffer.from(value).toString('hex')
const clusterIdOf = name => Encryption.createClusterId(name)
const sharedKeyOf = name => Encryption.createSharedKey(name)
const keyPairOf = async name => Encryption.createKeyPair(await sharedKeyOf(name))

const get = name => {
  const client = clients.get(name)
  if (!client) throw new Error(`no client '${name}'`)
  return client
}

const describePeer = peer => ({
  peerId: peer.peerId,
  address: peer.address,
  port: peer.port,
  natType: peer.natType,
  indexed: !!peer.indexed,
  connected: !!peer.connected,
  proxy: peer.proxy ? peer.proxy.peerId : null
})

const digest = data => ({ size: data.length, sha256: createHash('sha256').update(data).digest('hex') })

// What the peer tells its application, told on: events that the api has no name for are set on the peer itself.
function watch (client, peer) {
  const { name } = client
  const chain = (hook, tell) => {
    const previous = peer[hook]
    peer[hook] = (...args) => {
      tell(...args)
      if (previous) return previous(...args)
    }
  }
  chain('onConnecting', status => say({ event: 'connecting', client: name, ...status }))
  chain('onReady', info => say({ event: 'ready', client: name, ...info }))
  chain('onConnection', (packet, remote) => say({ event: 'connection', client: name, type: packet.type, ...describePeer(remote) }))
  chain('onIntro', (packet, remote, port, address) => say({
    event: 'intro',
    client: name,
    peerId: packet.message.requesterPeerId,
    by: packet.message.responderPeerId,
    isRendezvous: packet.message.isRendezvous,
    address,
    port
  }))
  chain('onProbe', (data, port, address) => say({ event: 'probe', client: name, address, port }))
  chain('onAnswer', (message, packet, port, address) => say({
    event: 'answer',
    client: name,
    packetId: hex(packet.packetId),
    message: hex(message),
    address,
    port
  }))
  chain('onStream', (packet, remote, port, address) => say({
    event: 'stream', client: name, peerId: remote.peerId, address, port, ...digest(packet.message)
  }))
  chain('onJoin', (packet, remote, port, address) => say({
    event: 'seen-join',
    client: name,
    type: packet.type,
    subclusterId: hex(packet.subclusterId),
    peerId: remote?.peerId ?? null,
    address,
    port
  }))
  chain('onPacket', (packet, port, address, own) => say({
    event: 'packet', client: name, packetId: hex(packet.packetId), own: !!own, address: address ?? null, port: port ?? null, ...digest(packet.message)
  }))
  chain('onDisconnection', removed => say({ event: 'disconnection', client: name, peerId: [removed].flat()[0]?.peerId ?? null }))
  chain('onError', error => {
    say({ event: 'error', client: name, text: String(error) })
    report(`onError of ${name}: ${error?.stack ?? error}`)
  })
}

const remotes = (nodes, peer) => nodes.map(node => new RemotePeer({ ...node, natType: 31, indexed: true }, peer))

// A cache, as the constructor takes it, of encoded packets.
const cacheOf = datagrams => datagrams.map(text => {
  const packet = Packet.decode(Buffer.from(text, 'hex'))
  return [hex(packet.packetId), packet]
})

async function create (request) {
  const { client: name, kind = 'api', address, nat = 'none', cluster, peerId, nodes, keepAlive, port, preload = [], resume, blocked = [] } = request
  const client = { name, kind, cluster, subs: new Map(), peer: null, bus: null }
  const tap = makeTap({
    address,
    nat,
    blocked: new Set(blocked),
    nodes: new Set(nodes.map(node => `${node.address}:${node.port}`)),
    onReport: text => report(`${name}: ${text}`),
    onPeer: peer => {
      if (client.peer) return
      client.peer = peer
      peer.peers = remotes(nodes, peer)
    }
  })
  client.tap = tap
  const config = {
    peerId,
    clusterId: await clusterIdOf(cluster),
    signingKeys: await Encryption.createKeyPair(peerId),
    worker: false
  }
  if (keepAlive) config.keepalive = keepAlive
  if (port) config.port = port
  let state = config
  if (resume) {
    const old = saved.get(resume)
    if (!old) throw new Error(`no saved state of '${resume}'`)
    state = { ...config, config: { ...old.config, ...config }, data: old.data, unpublished: old.unpublished }
  } else if (preload.length) {
    state = { ...config, config, data: cacheOf(preload) }
  }
  clients.set(name, client)
  if (kind === 'peer') {
    const peer = new Peer(state, tap)
    watch(client, peer)
    await peer.init()
  } else {
    // The api sets its own hooks between construction and init(): ours go around them just before init() runs.
    const init = Peer.prototype.init
    const starting = api(state, events, { ...tap, createSocket: (type, unused, peer, index) => {
      if (!Object.hasOwn(peer, 'init')) {
        peer.init = function (...args) { watch(client, peer); return init.apply(this, args) }
      }
      return tap.createSocket(type, unused, peer, index)
    } })
    client.bus = await starting
  }
  return { port: client.peer.config.port, probePort: client.peer.config.probeInternalPort }
}

async function introducer ({ client: name, address, port, probePort, peerId, nodes, keepAlive }) {
  const tap = makeTap({ address, onReport: report })
  const config = { peerId, indexed: true, natType: 31, address, port, probeInternalPort: probePort }
  if (keepAlive) config.keepalive = keepAlive
  const peer = new Peer(config, tap)
  peer.peers = remotes(nodes, peer)
  peer.onConnection = () => {} // without it the reference never starts a sync
  clients.set(name, { name, kind: 'introducer', peer, tap, subs: new Map() })
  await peer.init()
  return {}
}

async function subclusterOf (client, name) {
  let sub = client.subs.get(name)
  if (!sub) {
    sub = await client.bus.subcluster({ sharedKey: await sharedKeyOf(name) })
    client.subs.set(name, sub)
    sub.on('#join', (remote, packet) => say({
      event: 'join', client: client.name, subcluster: name, peerId: remote.peerId, type: packet.type, address: remote._peer.address, port: remote._peer.port
    }))
  }
  return sub
}

// The arguments of a bare peer's publish and stream, made as the api makes them.
async function pack (client, event, data, ttl) {
  const message = Buffer.from(data, 'base64')
  const keys = client.peer.signingKeys
  const args = {
    message,
    usr1: await sha256(event, { bytes: true }),
    usr2: Buffer.from(keys.publicKey),
    sig: Encryption.sign(message, keys.privateKey)
  }
  if (ttl) args.ttl = ttl
  return args
}

const operations = {
  create,
  introducer,

  async join ({ client: name, subcluster }) {
    const client = get(name)
    if (client.bus) {
      const sub = await subclusterOf(client, subcluster)
      return { subclusterId: hex(sub.subclusterId) }
    }
    await client.peer.join(await sharedKeyOf(subcluster))
    return { subclusterId: hex((await keyPairOf(subcluster)).publicKey) }
  },

  async listen ({ client: name, subcluster, event }) {
    const sub = await subclusterOf(get(name), subcluster)
    await sub.on(event, (opened, packet) => say({
      event: 'message',
      client: name,
      subcluster,
      name: event,
      opened: !!opened,
      verified: !!packet.verified,
      type: packet.type,
      packetId: hex(packet.packetId),
      ...(opened ? digest(opened) : {})
    }))
    return {}
  },

  async emit ({ client: name, subcluster, event, data, ttl }) {
    const client = get(name)
    let packets
    if (client.bus) {
      packets = await (await subclusterOf(client, subcluster)).emit(event, Buffer.from(data, 'base64'), ttl ? { ttl } : {})
    } else {
      packets = await client.peer.publish(await sharedKeyOf(subcluster), await pack(client, event, data, ttl))
    }
    return { packetIds: packets.map(packet => hex(packet.packetId)) }
  },

  async stream ({ client: name, subcluster, event, data, to }) {
    const client = get(name)
    let packets
    if (client.bus) {
      const remote = (await subclusterOf(client, subcluster)).peers.get(to)
      if (!remote) throw new Error(`${name} has not met ${to}`)
      packets = await remote.emit(event, Buffer.from(data, 'base64'))
    } else {
      packets = await client.peer.stream(to, await sharedKeyOf(subcluster), await pack(client, event, data))
    }
    if (!packets) throw new Error(`${name} does not know ${to}`)
    return {}
  },

  async query ({ client: name, packetId }) {
    await get(name).peer.query({ packetId })
    return {}
  },

  async pack ({ cluster, subcluster, event, data, ttl }) {
    const signingKeys = await Encryption.createKeyPair(`${cluster} ${subcluster}`)
    const tap = makeTap({ onReport: report })
    const peer = new Peer({ peerId: await Encryption.createId(), clusterId: await clusterIdOf(cluster), signingKeys }, tap)
    peer.peers = []
    await peer.publish(await sharedKeyOf(subcluster), await pack({ peer }, event, data, ttl))
    const datagrams = []
    for (const packet of peer.cache.data.values()) datagrams.push(hex(await Packet.encode(Object.assign(packet.copy(), { hops: 1 }))))
    return { datagrams }
  },

  async open ({ subcluster, data }) {
    const keys = await keyPairOf(subcluster)
    return { data: hex(new Encryption().open(Buffer.from(data, 'hex'), keys)) }
  },

  raw ({ client: name, data, port, address }) {
    const { peer } = get(name)
    return new Promise((resolve, reject) => {
      peer.socket.send(Buffer.from(data, 'hex'), port, address, error => error ? reject(error) : resolve({}))
    })
  },

  lie ({ client: name, address, port }) {
    Object.assign(get(name).peer, { address, port })
    return {}
  },

  forget ({ client: name }) {
    get(name).peer.cache.data.clear()
    return {}
  },

  info ({ client: name }) {
    const { peer } = get(name)
    return { peerId: peer.peerId, address: peer.address, port: peer.port, natType: peer.natType ?? 0, uptime: peer.uptime, closing: peer.closing }
  },

  peers ({ client: name }) {
    return get(name).peer.peers.map(describePeer)
  },

  cache ({ client: name }) {
    return [...get(name).peer.cache.data.values()].map(packet => ({
      packetId: hex(packet.packetId),
      type: packet.type,
      hops: packet.hops,
      index: packet.index
    }))
  },

  log ({ client: name, type, from, socket, since = 0 }) {
    const { tap } = get(name)
    if (tap.overflow()) throw new Error(`log of ${name} overflowed by ${tap.overflow()}`)
    const entries = tap.log.slice(since).filter(entry =>
      (type === undefined || entry.type === type) &&
      (from === undefined || entry.from === from) &&
      (socket === undefined || entry.socket === socket))
    return { entries, length: tap.log.length }
  },

  stats ({ client: name }) {
    const { peer, tap } = get(name)
    return { ...tap.stats, metrics: peer.metrics, cacheSize: peer.cache.size, peers: peer.peers.length }
  },

  close ({ client: name }) {
    const client = get(name)
    const state = client.peer.getState()
    saved.set(name, { config: { ...state.config }, data: state.data, unpublished: { ...state.unpublished } })
    client.peer.close()
    for (const socket of client.peer.socketPool ?? []) socket.close()
    clients.delete(name)
    return {}
  },

  errors () {
    return errors
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  const { id, op, ...request } = JSON.parse(line)
  // Not awaited: requests overlap, answers carry the id.
  Promise.resolve()
    .then(() => operations[op](request))
    .then(result => say({ id, result }), error => say({ id, error: String(error?.stack ?? error) }))
}
process.exit(0)
