// Streams one answer from rkvisord.  Usage: node stream.mjs ENDPOINT MODEL PROMPT
import { Dealer } from "zeromq"

const [endpoint = "tcp://127.0.0.1:5570", model = "demo", prompt = "Hello"] = process.argv.slice(2)
const socket = new Dealer({ linger: 0 })
socket.connect(endpoint)

const id = 1
await socket.send(JSON.stringify({ jsonrpc: "2.0", id, method: "rkllm.run", params: { model, prompt, stream: true } }))

for await (const [frame] of socket) {
  const message = JSON.parse(frame)
  if (message.method === "rkllm.token") {
    process.stdout.write(message.params.text)
  } else if (message.id === id) {
    if (message.error) {
      console.error(`\n${message.error.data.name}: ${message.error.message}`)
      process.exitCode = 1
    } else {
      const { finish_reason, worker, token_ids } = message.result
      console.log(`\n(${token_ids.length} tokens from ${worker}, finish_reason ${finish_reason})`)
    }
    break
  }
}
socket.close()
