"""What a plugin's call asks of the daemon, checked once more: whoever can use the socket can say anything."""

from ipcni.dhcp import conf, lease
from ipcni.dhcp.lease import Lease
from ipcni.dhcp.rpc import Args
from ipcni.protocol import skel
from ipcni.protocol.request import Request


def request(verb: str, args: Args, hostprefix: str) -> Request:
    """The call, with the namespace's path as it is here. Raises CniError for names that are none: they become paths."""
    variables = {
        "CNI_COMMAND": verb,
        "CNI_CONTAINERID": args.container_id,
        "CNI_NETNS": hostprefix + args.netns if args.netns else "",
        "CNI_IFNAME": args.ifname,
        "CNI_ARGS": args.args,
        "CNI_PATH": args.path,
    }
    if verb != "GC":
        skel.check_container_id(args.container_id)
        skel.check_ifname(args.ifname)
    return skel.request("dhcp", verb, variables, args.stdin)


def wanted(req: Request) -> Lease:
    """The lease to be had. Raises CniError for options that are none."""
    ipam = conf.load(req)
    return Lease(
        network=req.network,
        container_id=req.container_id,
        ifname=req.ifname,
        netns=req.netns_path,
        space=lease.space(req.netns_path),
        sent=conf.sent(ipam, req.args, conf.key(req.network, req.container_id, req.ifname)),
        asked=conf.asked(ipam),
        priority=ipam.priority,
    )
