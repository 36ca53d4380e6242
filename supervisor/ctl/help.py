"""What rkvisorctl says about itself."""

USAGE = """\
rkvisorctl -- look after rkvisord and its workers.

Usage: rkvisorctl [options] verb [names]

Options:
-c/--config FILE -- rkvisord's configuration, to learn where it listens
-s/--server ENDPOINT -- rkvisord's admin socket, such as ipc:///run/rkvisor/private/admin.sock
-h/--help -- print this and exit

Without options the server is looked for in $RKVISOR_ADMIN_ENDPOINT, ./rkvisor.toml and /etc/rkvisor/rkvisor.toml.

"rkvisorctl help" lists the verbs, "rkvisorctl help start" explains one."""

_NAMED = """\
{verb} <model>:<n>\t{what} one worker, such as demo:0
{verb} <model>:*\t{what} all workers of a model
{verb} <name> <name>\t{what} several workers or models
{verb} all\t\t{what} every worker"""

TOPICS = {
    "crash": "crash show <id>\tShow all that is known of a crash; the beginning of the id will do",
    "crashes": "crashes\t\t\tShow the last 20 crashes\ncrashes <n> <model>:<n>\tShow the last n, of one worker",
    "deadletters": "deadletters\t\t\tList the requests that ended every process that ran them\n"
    "deadletters show <digest>\tShow one\n"
    "deadletters release <digest>\tLet it run again\n"
    "deadletters purge [<digest>]\tThrow one or all away",
    "help": "help\t\tList the verbs\nhelp <verb>\tExplain a verb",
    "leaks": "leaks\t\t\tShow what the memory of each worker does\nleaks <model>:<n>\tShow all of one worker\n"
    "leaks --json\t\tTell it as JSON, with the samples\n"
    "leaks --html <file>\tWrite a page with plots",
    "pid": "pid\t\tThe pid of rkvisord\npid <name>\tThe pid of a worker, 0 if it is down\npid all\t\tThe pids of all",
    "restart": _NAMED.format(verb="restart", what="Restart"),
    "shutdown": "shutdown\t\tStop all workers and rkvisord itself",
    "start": _NAMED.format(verb="start", what="Start") + "\nIt answers when the model is loaded, or could not be.",
    "status": "status\t\t\tShow all workers\n" + _NAMED.format(verb="status", what="Show"),
    "stop": _NAMED.format(verb="stop", what="Stop") + "\nRequests that run may finish first (stopwaitsecs).",
    "version": "version\t\t\tThe version of rkvisord",
}


def overview() -> str:
    """The verbs, in the shape of supervisorctl's help."""
    header = "verbs (type help <verb>):"
    names = "  ".join(sorted(TOPICS))
    return f"\n{header}\n{'=' * len(header)}\n{names}\n"
