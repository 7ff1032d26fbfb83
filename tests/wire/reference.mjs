// The reference decoder behind a pipe. Reads [u32 length][datagram]… in batches: [u32 count] in front of each.
// Answers one line of JSON for each datagram: null when the reference refuses it, else its fields. A batch whose count is
// 0xffffffff is one JSON command instead: {"open": sealed, "key": shared key} answers the opened message in hex or null.
import { Packet, PACKET_SPEC, Encryption } from '../reference/load.mjs'

console.warn = () => {} // the reference complains here of every packet it refuses

const value = v => {
  if (typeof v === 'number') return ['number', Number.isFinite(v) ? v : String(v)]
  if (typeof v === 'string') return ['string', v]
  if (typeof v === 'boolean') return ['boolean', v]
  return ['other', null]
}

const describe = data => {
  const packet = Packet.decode(data)
  if (packet === null) return null
  const out = { version: packet.version }
  for (const [k, spec] of Object.entries(PACKET_SPEC)) {
    if (spec.encoding === 'number') out[k] = packet[k]
    else if (Buffer.isBuffer(packet[k])) out[k] = packet[k].toString('hex')
  }
  const m = packet.message
  if (m !== null && typeof m === 'object' && !Buffer.isBuffer(m)) {
    out.json = {}
    for (const k of Object.keys(m)) out.json[k] = value(m[k])
  }
  return out
}

const command = async ({ open, key }) => {
  const pair = await Encryption.createKeyPair(Buffer.from(key, 'hex'))
  try {
    return Buffer.from(new Encryption().open(Buffer.from(open, 'hex'), pair)).toString('hex')
  } catch {
    return null
  }
}

let buffered = Buffer.alloc(0)
const input = process.stdin[Symbol.asyncIterator]()
const read = async n => {
  while (buffered.length < n) {
    const { value, done } = await input.next()
    if (done) process.exit(0)
    buffered = Buffer.concat([buffered, value])
  }
  const taken = buffered.subarray(0, n)
  buffered = buffered.subarray(n)
  return taken
}
const number = async () => (await read(4)).readUInt32BE(0)

for (;;) {
  const count = await number()
  if (count === 0xffffffff) {
    const text = (await read(await number())).toString()
    process.stdout.write(JSON.stringify(await command(JSON.parse(text))) + '\n')
    continue
  }
  const lines = []
  for (let i = 0; i < count; i++) {
    // A copy: the reference hands out slices of what it is given.
    lines.push(JSON.stringify(describe(Buffer.from(await read(await number())))))
  }
  process.stdout.write(lines.join('\n') + '\n')
}
