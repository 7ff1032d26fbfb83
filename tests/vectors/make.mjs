// Writes the test vectors of this directory by running the unmodified reference peer's own code:
//   node tests/vectors/make.mjs [DIRECTORY]
// The clock and the random source are replaced by fixed ones, so the files come out the same every time; a test runs
// this script and compares.
import { writeFileSync } from 'node:fs'
import { createHash, webcrypto } from 'node:crypto'
import { createRequire } from 'node:module'
import { fileURLToPath } from 'node:url'
import path from 'node:path'

const OUT = process.argv[2] ?? path.dirname(fileURLToPath(import.meta.url))
const NOW = 1700000000000
Date.now = () => NOW

// Bytes that depend on a name only.
const bytes = (name, length) => {
  const parts = []
  for (let i = 0; i * 32 < length; i++) parts.push(createHash('sha256').update(`${name} ${i}`).digest())
  return Buffer.concat(parts).subarray(0, length)
}
const hex = b => Buffer.from(b).toString('hex')

// What libsodium draws its ephemeral keys from, under its three names.
let drawn = 0
const fill = view => {
  const b = new Uint8Array(view.buffer, view.byteOffset, view.byteLength)
  b.set(bytes(`random ${drawn++}`, b.length))
  return view
}
const nodeCrypto = createRequire(import.meta.url)('node:crypto')
nodeCrypto.randomBytes = n => fill(Buffer.alloc(n))
Object.defineProperty(globalThis, 'crypto', { value: { getRandomValues: fill, subtle: webcrypto.subtle } })

const warn = console.warn
const ref = await import('../reference/load.mjs')
const {
  Packet, PacketPing, PacketPong, PacketIntro, PacketJoin, PacketPublish, PacketStream, PacketSync, PacketQuery,
  Peer, Cache, Encryption, NAT, PACKET_SPEC, sha256
} = ref

const write = (name, what, vectors) => {
  const lines = vectors.map(v => '  ' + JSON.stringify(v)).join(',\n')
  writeFileSync(path.join(OUT, `${name}.json`), `{"what": ${JSON.stringify(what)}, "vectors": [\n${lines}\n]}\n`)
}

// ---------------------------------------------------------------- packets

const A = hex(bytes('peer a', 32))
const B = hex(bytes('peer b', 32))
const C = hex(bytes('peer c', 32))
const HASH = hex(bytes('summary', 20))
const EMPTY = 'da39a3ee5e6b4b0d3255bfef95601890afd80709'
const FULL = {
  clusterId: bytes('cluster', 32),
  subclusterId: bytes('subcluster', 32),
  previousId: bytes('previous', 32),
  packetId: bytes('packet', 32),
  nextId: bytes('next', 32),
  usr1: bytes('usr1', 32),
  usr2: bytes('usr2', 32),
  usr3: bytes('usr3', 32),
  usr4: bytes('usr4', 32),
  sig: bytes('sig', 64)
}
const PING = {
  requesterPeerId: A, cacheSummaryHash: HASH, probeExternalPort: 3456, reflectionId: '0123456789ab', pingId: '0123456789abc',
  natType: 31, uptime: 90000, cacheSize: 12, isConnection: true, isReflection: false, isProbe: true, isDebug: false,
  timestamp: NOW
}
const PONG = {
  requesterPeerId: A, responderPeerId: B, cacheSummaryHash: EMPTY, port: 40001, address: '203.0.113.9', uptime: 30000,
  cacheSize: 0, natType: 7, isReflection: true, isConnection: false, reflectionId: 'abcdef012345', pingId: 'ABCDEF012345',
  isDebug: true, isProbe: false, rejected: true
}
const INTRO = {
  requesterPeerId: A, responderPeerId: B, isRendezvous: true, natType: 15, address: '198.51.100.7', port: 65535, timestamp: NOW
}
const JOIN = {
  requesterPeerId: A, natType: 5, address: '192.0.2.1', port: 1, key: 'Zm9vYmFy/+=:YmFyZm9v', isConnection: true
}
const STAMP = {
  rendezvousAddress: '203.0.113.10', rendezvousPort: 3511, rendezvousType: 31, rendezvousPeerId: B,
  rendezvousDeadline: NOW + 30000
}

const packets = []
const FIELDS = Object.keys(PACKET_SPEC).filter(k => PACKET_SPEC[k].encoding !== 'number')
const snake = k => k.replace(/Id$/, '_id')

const add = async (name, packet) => {
  const data = await Packet.encode(packet)
  const back = Packet.decode(data)
  if (!back) throw new Error(`${name}: the reference does not decode its own packet`)
  const isJson = !Buffer.isBuffer(back.message)
  const vector = { name, hex: hex(data), type: back.type, clock: back.clock, hops: back.hops, index: back.index, ttl: back.ttl }
  vector.computed_id = packet.packetId.length === 1
  for (const k of FIELDS) {
    if (k === 'message') vector.message = hex(isJson ? Buffer.from(JSON.stringify(back.message)) : back.message)
    else vector[snake(k)] = hex(back[k])
  }
  if (isJson) vector.json = back.message
  packets.push(vector)
}

await add('ping, heartbeat', new PacketPing({ message: { requesterPeerId: A, natType: 31, uptime: 30000, cacheSize: 0, cacheSummaryHash: EMPTY } }))
await add('ping, no NAT type yet', new PacketPing({ message: { requesterPeerId: A, natType: null, isConnection: true, pingId: '0123456789ab' } }))
await add('ping, connection', new PacketPing({
  clusterId: FULL.clusterId,
  subclusterId: FULL.subclusterId,
  message: { requesterPeerId: A, pingId: '0123456789abc', natType: 7, isConnection: true, uptime: 60000, cacheSize: 3, cacheSummaryHash: HASH, timestamp: NOW }
}))
await add('ping, reflection from the probe socket', new PacketPing({ message: { requesterPeerId: A, isReflection: true, isProbe: true, reflectionId: '0123456789ab', pingId: 'ba9876543210' } }))
await add('ping, reflection with a probe port', new PacketPing({ message: { requesterPeerId: A, isReflection: true, reflectionId: '0123456789ab', probeExternalPort: 50001 } }))
await add('ping, every key, every field', new PacketPing({ ...FULL, message: PING, clock: 7, hops: 3, index: -1, ttl: 1000 }))
await add('pong, plain', new PacketPong({ message: { requesterPeerId: A, responderPeerId: B, cacheSize: 5, uptime: 30000, cacheSummaryHash: HASH, port: 40000, address: '127.0.0.1', natType: 31 } }))
await add('pong, reflection', new PacketPong({ message: { requesterPeerId: A, responderPeerId: B, cacheSummaryHash: EMPTY, port: 40000, address: '127.0.0.1', isReflection: true, reflectionId: '0123456789ab', pingId: '0123456789ab' } }))
await add('pong, every key, every field', new PacketPong({ ...FULL, message: PONG, clock: 1999999999, hops: 15 }))
await add('intro, plain', new PacketIntro({ message: { requesterPeerId: A, responderPeerId: B, natType: 31, address: '127.0.0.1', port: 40000 } }))
await add('intro, every key, every field', new PacketIntro({ ...FULL, message: INTRO, hops: 2, usr1: Buffer.from(String(NOW)) }))
await add('join, first hop', new PacketJoin({ clusterId: FULL.clusterId, subclusterId: FULL.subclusterId, clock: 2, hops: 1, message: JOIN }))
await add('join, stamped', new PacketJoin({ clusterId: FULL.clusterId, subclusterId: FULL.subclusterId, clock: 2, hops: 2, message: { ...JOIN, ...STAMP } }))
await add('join, answer to the rendezvous peer', new PacketJoin({ clusterId: FULL.clusterId, message: { ...JOIN, rendezvousType: 7, rendezvousRequesterPeerId: C } }))
await add('join, every key, every field', new PacketJoin({ ...FULL, message: { ...STAMP, rendezvousRequesterPeerId: C, ...JOIN } }))
await add('publish, one byte', new PacketPublish({ message: Buffer.from([7]) }))
await add('publish, 1024 bytes, every field', new PacketPublish({ ...FULL, message: bytes('payload', 1024), clock: 2e9 - 1, hops: 16, ttl: 4294967295 }))
await add('publish, clock wraps', new PacketPublish({ message: bytes('payload', 100), clock: 2e9 }))
await add('publish, head of a split message', new PacketPublish({ index: 0, message: { meta: {}, ts: NOW, size: 2048, indexes: 2 } }))
await add('publish, fragment', new PacketPublish({ ...FULL, index: 2, message: bytes('fragment', 1024) }))
await add('publish, largest index', new PacketPublish({ index: 2147483647, message: bytes('fragment', 10) }))
await add('publish, empty fields', new PacketPublish({ message: Buffer.from('x'), packetId: FULL.packetId, previousId: Buffer.alloc(0), usr1: Buffer.alloc(0), sig: Buffer.alloc(0) }))
await add('publish, text', new PacketPublish({ message: 'plain text' }))
await add('stream', new PacketStream({ ...FULL, message: bytes('stream', 333) }))
await add('stream, head of a split message', new PacketStream({ usr3: FULL.usr3, usr4: FULL.usr4, index: 0, message: { meta: { a: [1, { b: null }] }, ts: NOW, size: 5000, indexes: 5 } }))
await add('sync, unset message', new PacketSync({}))
await add('sync, summary', new PacketSync({ usr4: Buffer.from(String(NOW)), message: Cache.encodeSummary({ prefix: '', hash: EMPTY, buckets: Array(16).fill(null) }) }))
await add('query, question', new PacketQuery({ usr1: Buffer.from(String(NOW)), usr3: FULL.usr3, usr4: Buffer.from('1'), message: { packetId: C } }))
await add('query, free form', new PacketQuery({ message: { history: ['a', 1, null, true, { deep: [[]] }], packetId: 'short' } }))
await add('query, answer', new PacketQuery({ ...FULL, usr4: Buffer.from('2'), message: bytes('payload', 512) }))
await add('query, no message', new PacketQuery({}))

// Ids computed and not, for every type: previousId and nextId unset, or set.
const SMALL = { 1: { requesterPeerId: A }, 2: { requesterPeerId: A, responderPeerId: B }, 3: { requesterPeerId: A, responderPeerId: B, natType: 31, address: '127.0.0.1', port: 9 }, 4: JOIN }
for (const T of [PacketPing, PacketPong, PacketIntro, PacketJoin, PacketPublish, PacketStream, PacketSync, PacketQuery]) {
  const name = T.name.replace('Packet', '').toLowerCase()
  const message = SMALL[T.type] ?? (T === PacketQuery ? { packetId: A } : bytes(name, 40))
  await add(`${name}, ids unset`, new T({ message }))
  await add(`${name}, previousId set, id computed`, new T({ message, previousId: FULL.previousId }))
  await add(`${name}, both neighbours set, id computed`, new T({ message, previousId: FULL.previousId, nextId: FULL.nextId }))
  await add(`${name}, every id set`, new T({ ...FULL, message }))
}
write('packets', 'Packets as the reference encodes and decodes them. Fields are hex; computed_id: encoded with an unset packetId.', packets)

// ------------------------------------------------------- split messages

const splits = []
for (const size of [1, 1024, 1025, 2048, 10000]) {
  const peer = Object.create(Peer.prototype)
  peer.cache = new Cache()
  const message = bytes(`split ${size}`, size)
  const parts = await peer._message2packets(PacketPublish, message, { clusterId: FULL.clusterId, subclusterId: FULL.subclusterId, usr1: FULL.usr1, usr2: FULL.usr2, sig: FULL.sig })
  const encoded = []
  for (const p of parts) {
    const back = Packet.decode(await Packet.encode(p))
    encoded.push({ index: back.index, clock: back.clock, packet_id: hex(back.packetId), previous_id: hex(back.previousId), next_id: hex(back.nextId), hex: hex(await Packet.encode(p)) })
  }
  const vector = { size, ts: NOW, message: hex(message), packets: encoded }
  if (parts.length > 1) {
    const cache = new Cache()
    for (const p of parts) cache.insert(hex(p.packetId), Packet.from(p))
    const whole = await cache.compose(parts[0])
    if (!whole || Buffer.compare(whole.message, message) !== 0) throw new Error('the reference does not compose its own fragments')
    vector.composed_id = hex(whole.packetId)
  }
  splits.push(vector)
}
write('splits', 'Messages as the reference splits them: every packet with its ids, and the id of the composed packet made from the head.', splits)

// ------------------------------------------------------------ summaries

const summaries = []
const everyId = Array.from({ length: 300 }, (_, i) => hex(bytes(`id ${i}`, 32)))
const near = ['aa', 'aaa', 'aaab', 'ab'].map(p => p + everyId[0].slice(p.length)).concat(everyId[1])
const sets = [
  [[], ['', 'a']],
  [everyId.slice(0, 1), ['', 'ffff']],
  [everyId.slice(0, 20), ['']],
  [everyId, ['', '3', '0', 'f', everyId[0].slice(0, 2)]],
  [near, ['', 'a', 'aa', 'aaa', near[2].slice(0, 62), near[2].slice(0, 63)]]
]
for (const [ids, prefixes] of sets) {
  const cache = new Cache()
  for (const id of ids) cache.data.set(id, {})
  const found = []
  for (const prefix of prefixes) {
    const summary = await cache.summarize(prefix, () => true)
    const encoded = Cache.encodeSummary(summary)
    found.push({ ...summary, encoded: hex(encoded), decoded: Cache.decodeSummary(encoded) })
  }
  summaries.push({ ids, summaries: found })
}
write('summaries', 'Cache.summarize of sets of packet ids below a prefix, and its encoding; decoded is what Cache.decodeSummary makes of that.', summaries)

// ----------------------------------------------------------------- keys

const keys = []
for (const text of ['a', 'test', 'a longer name, with spaces', 'caf\u00e9 \u{1f600}', '0'.repeat(200)]) {
  const sharedKey = await Encryption.createSharedKey(text)
  const pair = await Encryption.createKeyPair(sharedKey)
  const textPair = await Encryption.createKeyPair(text)
  keys.push({
    text,
    id: await Encryption.createId(text),
    cluster_id: hex(await Encryption.createClusterId(text)),
    shared_key: hex(sharedKey),
    public_key: hex(pair.publicKey),
    private_key: hex(pair.privateKey),
    text_public_key: hex(textPair.publicKey)
  })
}
write('keys', 'createId, createClusterId, createSharedKey, the key pair of that shared key (public_key is the subclusterId) and the key pair of the text itself.', keys)

const sealed = []
for (const [i, size] of [0, 1, 63, 64, 65, 100, 864].entries()) {
  const shared = await Encryption.createSharedKey(`shared ${i}`)
  const pair = await Encryption.createKeyPair(shared)
  const user = await Encryption.createKeyPair(`user ${i}`)
  const encryption = new Encryption()
  encryption.add(pair.publicKey, pair.privateKey)
  const message = bytes(`message ${i}`, size)
  const box = encryption.seal(message, pair)
  if (Buffer.compare(Buffer.from(encryption.open(box, pair)), message) !== 0) throw new Error('the reference does not open its own box')
  sealed.push({
    shared_key: hex(shared),
    message: hex(message),
    sealed: hex(box),
    user_public_key: hex(user.publicKey),
    sig: hex(Encryption.sign(message, user.privateKey)),
    event_id: hex(await sha256('greeting', { bytes: true }))
  })
}
write('sealed', 'Messages sealed for the key pair of a shared key, and signed by a user. sig covers the message from byte 64 on.', sealed)

// ----------------------------------------------------------- strategies

const strategies = []
for (const ours of [31, 15, 7, 5, 0, 13, 29, 21, 23]) {
  for (const theirs of [31, 15, 7, 5, 0, 13, 29, 21, 23]) {
    strategies.push({ ours, theirs, strategy: NAT.toStringStrategy(NAT.connectionStrategy(ours, theirs)).replace('STRATEGY_', '').toLowerCase() })
  }
}
write('strategies', 'NAT.connectionStrategy(ours, theirs).', strategies)

const nats = []
for (let n = 0; n < 32; n++) nats.push({ nat: n, valid: NAT.isValid(n) })
write('nat-types', 'NAT.isValid of every 5-bit number.', nats)

// ------------------------------------------------------------- verdicts

const u16 = n => { const b = Buffer.alloc(2); b.writeUInt16BE(n); return b }
const u32 = n => { const b = Buffer.alloc(4); b.writeUInt32BE(n >>> 0); return b }
// A datagram put together by hand. fields: name to bytes; lengths: name to a length that lies.
const raw = (type, message, { fields = {}, lengths = {}, version = 6, index = -1, magic = [3, 5, 0x0b, 0x11] } = {}) => {
  const all = { ...fields, message: Buffer.from(message) }
  const parts = [Buffer.from(magic), Buffer.from([type]), u16(version), u32(1), u32(0), u32(index), u32(1000)]
  for (const k of FIELDS) {
    const value = all[k] ?? Buffer.from([0])
    parts.push(u16(lengths[k] ?? value.length), value)
  }
  return Buffer.concat(parts)
}
const T = { ping: 1, pong: 2, intro: 3, join: 4, publish: 5, stream: 6, sync: 7, query: 8 }
const verdicts = []
// `difference` names a row of docs/wire-differences.md; without it the reference must agree.
const judge = (verdict, name, data, difference, shown = { hex: hex(data) }) => {
  console.warn = () => {}
  const packet = Packet.decode(data)
  console.warn = warn
  const reference = packet !== null && packet.version === 6
  if (reference !== (verdict === 'ok') && !difference) throw new Error(`${name}: the reference ${reference ? 'takes' : 'refuses'} it`)
  if (reference === (verdict === 'ok') && difference) throw new Error(`${name}: the reference agrees after all`)
  verdicts.push({ name, verdict, reference, ...(difference ? { difference } : {}), ...shown })
}
const text = (verdict, name, type, message, difference) =>
  judge(verdict, name, raw(T[type], message), difference, { type: T[type], text: message })
const object = (verdict, name, type, message, difference) => text(verdict, name, type, JSON.stringify(message), difference)

const good = raw(T.ping, JSON.stringify(PING))
judge('short', 'nothing', Buffer.alloc(0))
judge('short', 'one byte, as sent to open a mapping', Buffer.from([1]))
judge('short', 'magic only', good.subarray(0, 4))
judge('magic', 'other magic', raw(T.ping, JSON.stringify(PING), { magic: [3, 5, 7, 11] }))
judge('magic', 'zeros', Buffer.alloc(2423))
judge('short', 'ends in the numbers', good.subarray(0, 22))
judge('short', 'ends behind the numbers', good.subarray(0, 23))
judge('short', 'ends inside a length', good.subarray(0, 24))
judge('short', 'ends before sig', good.subarray(0, good.length - 3))
judge('short', 'ends inside the length of sig', good.subarray(0, good.length - 2))
judge('ok', 'ends inside sig: a shorter sig', good.subarray(0, good.length - 1))
judge('ok', 'bytes behind sig are ignored', Buffer.concat([good, bytes('tail', 600)]))
for (const type of [0, 9, 255]) judge('type', `type ${type}`, raw(type, '{}'))
for (const version of [0, 5, 7, 65535]) judge('version', `version ${version}`, raw(T.ping, JSON.stringify(PING), { version }))
for (const k of FIELDS) {
  const max = PACKET_SPEC[k].bytes
  judge('length', `${k} one byte over its maximum`, raw(T.publish, 'x', { fields: k === 'message' ? {} : { [k]: bytes(k, max + 1) }, lengths: { [k]: max + 1 } }))
  if (k !== 'message') judge('ok', `${k} at its maximum`, raw(T.publish, 'x', { fields: { [k]: bytes(k, max) } }))
  if (k !== 'sig') judge('length', `${k} runs past the end`, raw(T.publish, 'x', { fields: { sig: Buffer.alloc(0) }, lengths: { [k]: max } }).subarray(0, 60 + FIELDS.indexOf(k)))
}
judge('ok', 'message at its maximum', raw(T.publish, bytes('m', 1024)))
judge('length', 'message one byte over its maximum, all there', raw(T.publish, bytes('m', 1025)))
judge('ok', 'all fields empty', raw(T.publish, '', { fields: Object.fromEntries(FIELDS.map(k => [k, Buffer.alloc(0)])) }))

const notJson = {
  'empty message': '',
  'unset message': '\0',
  'no JSON': 'hello',
  'an array': '[]',
  'a string': '"text"',
  'a number': '12',
  null: 'null',
  true: 'true',
  'byte order mark': '\ufeff{}',
  'no-break space in front': '\u00a0{}',
  'open object': '{',
  'open string': '{"requesterPeerId":"',
  'open key': '{"requesterPeerId',
  'key without value': '{"requesterPeerId"}',
  'key with colon only': '{"requesterPeerId":}',
  'two objects': '{}{}',
  'text behind': `{"requesterPeerId":"${A}"} x`,
  'NUL behind': `{"requesterPeerId":"${A}"}\0`,
  'comma at the end': `{"requesterPeerId":"${A}",}`,
  'comma at the start': `{,"requesterPeerId":"${A}"}`,
  'two commas': `{"requesterPeerId":"${A}",,"uptime":1}`,
  'no comma': `{"requesterPeerId":"${A}" "uptime":1}`,
  'single quotes': `{'requesterPeerId':'${A}'}`,
  'bare key': `{requesterPeerId:"${A}"}`,
  'a comment': `{"requesterPeerId":"${A}"/**/}`,
  'bracket instead of brace': `{"requesterPeerId":"${A}"]`,
  'tab in a string': `{"requesterPeerId":"${A}","address\t":1}`,
  'newline in a value': `{"requesterPeerId":"${A.slice(1)}\n"}`,
  'unknown escape': `{"requesterPeerId":"\\x${A}"}`,
  'short unicode escape': `{"requesterPeerId":"\\u12"}`,
  'bad unicode escape': `{"requesterPeerId":"\\u12g4"}`,
  'backslash at the end': `{"requesterPeerId":"\\`,
  'vertical tab as blank': `{\v"requesterPeerId":"${A}"}`
}
for (const number of ['01', '-', '+1', '.5', '1.', '1e', '1e+', '0x10', '1_000', 'NaN', 'Infinity', '-Infinity', '00', '-01', '1.e3', '1e3.5', '--1', '\uff11', '1n', '12345678901234567890.']) {
  notJson[`number ${number}`] = `{"requesterPeerId":"${A}","uptime":${number}}`
}
for (const word of ['True', 'tru', 'truex', 'fals', 'nul', 'undefined', '\u0000']) notJson[`word ${JSON.stringify(word)}`] = `{"requesterPeerId":"${A}","isProbe":${word}}`
for (const [name, message] of Object.entries(notJson)) text('json', name, 'ping', message)

const ping = `"requesterPeerId":"${A}"`
for (const value of ['[', '{', '[1,]', '{"a":1,}', '{"a"}', '{"a":}', '{1:2}', '[1 2]', '[}', '{]', '["\\q"]', '[01]', '[[[']) text('json', `nested ${value}`, 'ping', `{${ping},"natType":${value}}`)

const nest = (open, close, inner, levels) => open.repeat(levels) + inner + close.repeat(levels)
text('ok', 'value 64 arrays deep, where it is not checked', 'ping', `{${ping},"natType":${nest('[', ']', '', 64)}}`)
text('deep', 'value 65 arrays deep', 'ping', `{${ping},"natType":${nest('[', ']', '', 65)}}`, 'deep')
text('deep', 'value 400 arrays deep', 'ping', `{${ping},"natType":${nest('[', ']', '', 400)}}`, 'deep')
text('deep', 'value 65 objects deep', 'ping', `{${ping},"natType":${nest('{"a":', '}', '1', 65)}}`, 'deep')
text('deep', '900 open brackets', 'ping', `{${ping},"natType":${'['.repeat(900)}`)
text('ok', 'query 400 arrays deep: not read', 'query', `{"packetId":"${C}","x":${nest('[', ']', '', 400)}}`)
text('ok', 'query, 900 open brackets', 'query', '['.repeat(900))
text('ok', 'query, a list with a member that JavaScript cannot turn into a number', 'query', '[{"toString":1}]', 'list')
text('ok', 'query, a list', 'query', '[1,"2",null,[3],{"a":4}]')

for (const [type, base] of [['ping', PING], ['pong', PONG], ['intro', INTRO], ['join', { ...STAMP, rendezvousRequesterPeerId: C, ...JOIN }]]) {
  const upper = type[0].toUpperCase() + type.slice(1)
  object('ok', `${upper}: every key`, type, base)
  object('key', `${upper}: one key more`, type, { ...base, extra: 1 })
  object('key', `${upper}: a key of nothing`, type, { ...base, '': 1 })
  object('key', `${upper}: a key in other case`, type, { ...base, requesterPeerID: A })
  object('key', `${upper}: a name of Object.prototype`, type, { ...base, constructor: 1 })
  text('key', `${upper}: __proto__`, type, JSON.stringify(base).replace('{', '{"__proto__":{},'))
  object('key', `${upper}: packetId is of queries`, type, { ...base, packetId: A })
  for (const k of ['rejected', 'timestamp', 'responderPeerId', 'cacheSummaryHash', 'rendezvousPort', 'isRendezvous', 'probeExternalPort', 'key', 'address']) {
    if (!(k in base)) object('key', `${upper}: ${k} is of other types`, type, { ...base, [k]: { ...PING, ...PONG, ...INTRO, ...JOIN, ...STAMP }[k] })
  }
  for (const k of Object.keys(base)) {
    const { [k]: _, ...without } = base
    console.warn = () => {}
    const reference = Packet.decode(raw(T[type], JSON.stringify(without))) !== null
    console.warn = warn
    object(reference ? 'ok' : 'missing', `${upper}: without ${k}`, type, without)
    for (const [what, value] of [['null', null], ['a list', [base[k]]], ['an object', { [k]: base[k] }], ['of another type', typeof base[k] === 'string' ? 1 : String(base[k])]]) {
      object('value', `${upper}: ${k} is ${what}`, type, { ...base, [k]: value })
    }
    if (/PeerId$/.test(k)) {
      for (const bad of [A.slice(1), A + '0', A.slice(2), A + '00', '', 'g' + A.slice(1), A.slice(1) + ' ', A.slice(1) + '\u00e9', '0x' + A.slice(2)]) object('value', `${upper}: ${k} ${JSON.stringify(bad)}`, type, { ...base, [k]: bad })
      object('ok', `${upper}: ${k} in capitals`, type, { ...base, [k]: A.toUpperCase() })
    }
    if (/(Port|^port)$/.test(k)) {
      for (const bad of [0, 65536, -1, 1.5, 65535.5, 4294967297, 1e300]) object(type === 'pong' ? 'ok' : 'value', `${upper}: ${k} ${bad}`, type, { ...base, [k]: bad })
    }
    if (/(natType|rendezvousType)$/.test(k)) {
      for (const bad of [0, 1, 4, 2, 8, 16, 30, 27, 32, 64, -1.5 * 2 ** 60, 9007199254740997]) object('value', `${upper}: ${k} ${bad}`, type, { ...base, [k]: bad })
      for (const odd of [5, 7, 13, 15, 21, 23, 29, 31, 37, 63, 1029, 31.7, -1, -27, -27.5, 4294967301, 9007199254740991]) object('ok', `${upper}: ${k} ${odd}`, type, { ...base, [k]: odd })
    }
  }
}
for (const [k, bads] of Object.entries({ cacheSummaryHash: [HASH.slice(1), HASH + '0', 'x' + HASH.slice(1)], reflectionId: ['0123456789abc', '0123456789a', '0123456789ag', ''], pingId: ['0123456789abcd', '0123456789a', '0123456789abg', ' 123456789ab'] })) {
  for (const bad of bads) {
    object('value', `Ping: ${k} ${JSON.stringify(bad)}`, 'ping', { ...PING, [k]: bad })
    object('value', `Pong: ${k} ${JSON.stringify(bad)}`, 'pong', { ...PONG, [k]: bad })
  }
}
object('missing', 'Ping: {}', 'ping', {})
object('missing', 'Pong: {}', 'pong', {})
object('missing', 'Intro: {}', 'intro', {})
object('ok', 'Join: {}, checked no further than its first absent key', 'join', {})
object('ok', 'Join: everything wrong behind the first absent key', 'join', { requesterPeerId: 5, natType: null, address: [], port: {}, key: 1, isConnection: 'no', rendezvousPort: -1 })
object('missing', 'Join: stamped, without requesterPeerId', 'join', { ...STAMP, rendezvousRequesterPeerId: C })
object('ok', 'Ping: NAT type null, as a client sends it before it knows', 'ping', { requesterPeerId: A, natType: null })
object('ok', 'Ping: wrong behind the first absent key', 'ping', { requesterPeerId: A, probeExternalPort: 'x', natType: 99, pingId: bytes('p', 300).toString('hex') })
object('value', 'Ping: wrong before the first absent key', 'ping', { requesterPeerId: A, cacheSummaryHash: 'x' })
object('ok', 'Pong: an address that is none', 'pong', { ...PONG, address: 'localhost' })
object('ok', 'Pong: an address that is no IPv4', 'pong', { ...PONG, address: '::1' })
object('ok', 'Intro: an empty address', 'intro', { ...INTRO, address: '' })
object('ok', 'Intro: a long address', 'intro', { ...INTRO, address: 'x'.repeat(500) })
text('ok', 'key with escapes', 'ping', `{"\\u0072equesterPeerId":"${A}","natT\\u0079pe":31}`)
text('ok', 'value with escapes', 'ping', `{"requesterPeerId":"\\u0061${'0'.repeat(63)}"}`)
text('value', 'value with other escapes', 'ping', `{"requesterPeerId":"\\n${'0'.repeat(63)}"}`)
text('value', 'value with a NUL', 'ping', `{"requesterPeerId":"\\u0000${'0'.repeat(63)}"}`)
text('key', 'key with a NUL', 'ping', `{${ping},"natType\\u0000":31}`)
text('key', 'key with a lone surrogate', 'ping', `{${ping},"natType\\ud800":31}`)
text('ok', 'blanks everywhere', 'ping', ` \n{\r"requesterPeerId"\t: "${A}" , "uptime" :\n1 }\t\t`)
text('ok', 'the last of two values counts: good', 'ping', `{"requesterPeerId":1,${ping}}`)
text('value', 'the last of two values counts: bad', 'ping', `{${ping},"requesterPeerId":1}`)
text('ok', 'the last of two numbers counts', 'intro', `{"port":1e99,${JSON.stringify(INTRO).slice(1, -1)},"port":8e1}`)
text('value', 'the last of two numbers counts: bad', 'intro', `{${JSON.stringify(INTRO).slice(1, -1)},"port":8.5e0}`)
for (const number of ['80.0', '8e1', '800E-1', '0.08e3', '1.0', '65535.00000000000000000001', '0.99999999999999999999', '0.00000000000000000000000000080e30', '8' + '0'.repeat(100) + 'e-99', '1e0']) {
  text('ok', `Intro: port written ${number}`, 'intro', JSON.stringify(INTRO).replace('65535', number))
}
for (const number of ['0', '-0', '0.0', '-0.0', '0e5', '1e-400', '1e400', '-1e400', '65535.001', '65536', '0.9999999999', '1e5', '18446744073709551617', '-80']) {
  text('value', `Intro: port written ${number}`, 'intro', JSON.stringify(INTRO).replace('65535', number))
}
for (const number of ['4.9999999999999999', '31.0', '3.1e1', '5e0', '500e-2', '-2.7e1']) text('ok', `Intro: natType written ${number}`, 'intro', JSON.stringify(INTRO).replace(':15,', `:${number},`))
for (const number of ['4.999999', '1e400', '-1e400', '5e20', '36028797018963973', '5e-1']) text('value', `Intro: natType written ${number}`, 'intro', JSON.stringify(INTRO).replace(':15,', `:${number},`))
judge('ok', 'malformed UTF-8 in a value that is not checked', raw(T.ping, Buffer.concat([Buffer.from(`{${ping},"pingId":"`), Buffer.from([0xff, 0xc0, 0x80, 0xed, 0xa0, 0x80, 0xf4, 0x90, 0xe2]), Buffer.from('"}')])))
judge('key', 'malformed UTF-8 in a key', raw(T.ping, Buffer.concat([Buffer.from(`{${ping},"pingId`), Buffer.from([0xc2]), Buffer.from('":1}')])))
judge('json', 'malformed UTF-8 outside strings', raw(T.ping, Buffer.concat([Buffer.from(`{${ping}`), Buffer.from([0xc2, 0xa0]), Buffer.from('}')])))
judge('json', 'UTF-16', raw(T.ping, Buffer.from(`{${ping}}`, 'utf16le')))
for (const type of ['publish', 'stream', 'sync', 'query']) {
  for (const [name, message] of Object.entries({ text: 'not JSON', 'an empty message': '', JSON: '{"a":1}', 'half JSON': '{"a":' })) {
    judge('ok', `${type} head: ${name}`, raw(T[type], message, { index: 0 }))
    judge('ok', `${type}: ${name}`, raw(T[type], message))
  }
}
judge('ok', 'ping with index 5', raw(T.ping, JSON.stringify(PING), { index: 5 }))
const names = new Set()
for (const v of verdicts) {
  if (names.has(v.name)) throw new Error(`two vectors named ${v.name}`)
  names.add(v.name)
}
write('verdicts', 'Datagrams with the verdict that they must get; reference: whether the reference takes them; difference: the row of docs/wire-differences.md where the two disagree. The datagram is hex, or text: the message of a packet of that type, index -1, ttl 1000, all other fields unset, in UTF-8.', verdicts)
