// Lines of JSON: commands come in on standard input, events leave on standard output. A command names its handler
// ('do') and the run it is about ('id'); every event carries the same id. The end of the input is the end of the program.
import readline from 'node:readline'

export const nowNs = () => Number(process.hrtime.bigint()) // CLOCK_MONOTONIC, as Python's time.monotonic_ns()

export const tell = (id, event, more = {}) =>
  process.stdout.write(JSON.stringify({ id, event, atNs: nowNs(), ...more }) + '\n')

// handlers: { name: async (id, command) => … }
export function serve (handlers) {
  // The reference leaves rejections and errors of timers unhandled; an application that lives on counts them.
  for (const name of ['uncaughtException', 'unhandledRejection']) {
    process.on(name, error => tell(0, 'error', { what: String(error?.stack ?? error) }))
  }
  const input = readline.createInterface({ input: process.stdin })
  input.on('line', async line => {
    const command = JSON.parse(line)
    try {
      await handlers[command.do](command.id, command)
    } catch (error) {
      tell(command.id, 'error', { what: String(error?.stack ?? error) })
    }
  })
  input.on('close', () => process.exit(0))
  tell(0, 'serving')
}
