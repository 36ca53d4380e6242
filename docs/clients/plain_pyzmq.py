"""Streams one answer from rkvisord with nothing but pyzmq.  Usage: python plain_pyzmq.py [ENDPOINT [MODEL [PROMPT]]]"""

import json
import sys

import zmq


def main() -> int:
    """Print the answer as it comes.  Exit status 1 where the server answers with an error."""
    given = sys.argv[1:]
    endpoint, model, prompt = given + ["tcp://127.0.0.1:5570", "demo", "Hello"][len(given) :]
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(endpoint)
        params = {"model": model, "prompt": prompt, "stream": True}
        socket.send_json({"jsonrpc": "2.0", "id": 1, "method": "rkllm.run", "params": params})
        while True:
            message = json.loads(socket.recv())
            if message.get("method") == "rkllm.token":
                print(message["params"]["text"], end="", flush=True)
            elif message.get("id") == 1:
                break
    if "error" in message:
        error = message["error"]
        print(f"{error['data']['name']}: {error['message']}", file=sys.stderr)
        return 1
    result = message["result"]
    print(f"\n({len(result['token_ids'])} tokens from {result['worker']}, finish_reason {result['finish_reason']})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
