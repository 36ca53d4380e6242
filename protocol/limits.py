"""Limits of the wire, with the precedent of each.  The configuration may lower or raise those that say so."""

#: Version of the messages between rkvisord and its processes; both must be the same.
LINK_VERSION = 1
#: Version of what clients speak, told by ``system.version``.
PROTOCOL_VERSION = "1.0"

#: Bytes of a request's id as written in JSON (design §4).
MAX_ID_BYTES = 256
#: Bytes of one frame from a client (ZMQ_MAXMSGSIZE; configurable): room for 4096 × 2048 float32 and its JSON.
MAX_MESSAGE_BYTES = 64 * 1024 * 1024
#: Bytes of the JSON frame of one message: prompts of the longest context (16384 tokens) fit many times over.
MAX_JSON_BYTES = 4 * 1024 * 1024
#: Requests in one JSON-RPC batch array.
MAX_BATCH = 100
#: Nested arrays and objects in one message; Python's own recursion limit would end at about 1000.
MAX_DEPTH = 64
#: Attachment frames of one message.
MAX_ATTACHMENTS = 16
#: Numbers of a tensor that travels as a JSON list; a larger one is an attachment.
MAX_LIST_NUMBERS = 65_536
#: Bytes of a request_key.
MAX_KEY_BYTES = 256
#: The longest context of any RKLLM model (shared facts of the runtime: ≤ 16384, a multiple of 32).
MAX_CONTEXT = 16384
#: Socket path, without the ending NUL (sockaddr_un.sun_path on Linux is 108 bytes).
MAX_SOCKET_PATH_BYTES = 107
