#!/bin/bash
# podman.sh PLUGIN_DIR: podman's containers on bridge and on flannel networks that were written by hand.
#
# In a throw-away node (lib.sh of $IPCNI_SHARED/clients). By hand, since `podman network create` asks for firewall and tuning.
shared=${IPCNI_SHARED:?names the folder with clients/lib.sh}
. "$shared/clients/lib.sh"
plugins=$(readlink -f "${1:?usage: podman.sh PLUGIN_DIR}")
for tool in podman conmon runc; do command -v $tool >/dev/null || die "$tool is missing"; done
node_enter "$plugins"

export CONTAINERS_CONF=$NODE_DIR/containers.conf
cat >"$CONTAINERS_CONF" <<Y
[containers]
log_driver = "k8s-file"
[network]
network_backend = "cni"
cni_plugin_dirs = ["$plugins"]
network_config_dir = "/etc/cni/net.d"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
Y
mkdir -p /etc/containers /run/flannel
echo '{"default": [{"type": "insecureAcceptAnything"}]}' >/etc/containers/policy.json
pm() { podman --root "$NODE_DIR/storage" --runroot /run/containers --tmpdir /run/libpod "$@"; }
start() { # NAME OPTIONS...: serves a page
    local name=$1
    shift
    pm run -d --cgroup-parent "$CGROUP_PARENT" --name "$name" "$@" localhost/tiny /bin/httpd -f -p 80 -h /www
}
field() { pm inspect -f "{{(index .NetworkSettings.Networks \"$2\").$3}}" "$1"; }
pid() { pm inspect -f '{{.State.Pid}}' "$1"; }

conflist() { # VERSION NAME RANGES
    cat >"/etc/cni/net.d/$2.conflist" <<Y
{"cniVersion": "$1", "name": "$2", "plugins": [
  {"type": "bridge", "bridge": "br-$2", "isGateway": true, "ipMasq": true, "hairpinMode": true, "capabilities": {"ips": true, "mac": true},
   "ipam": {"type": "host-local", "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}], "ranges": $3}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
Y
}
conflist 0.4.0 podman '[[{"subnet": "10.78.0.0/16"}]]'
conflist 1.0.0 front '[[{"subnet": "10.78.1.0/24"}]]'
conflist 0.4.0 dual '[[{"subnet": "10.78.2.0/24"}], [{"subnet": "fd00:78:2::/64"}]]'
cat >/etc/cni/net.d/cbr0.conflist <<'Y'
{"name": "cbr0", "cniVersion": "0.3.1", "plugins": [
  {"type": "flannel", "delegate": {"hairpinMode": true, "isDefaultGateway": true}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
Y
printf '%s\n' FLANNEL_NETWORK=10.244.0.0/16 FLANNEL_SUBNET=10.244.7.1/24 FLANNEL_MTU=1400 FLANNEL_IPMASQ=true >/run/flannel/subnet.env

make_rootfs "$NODE_DIR/rootfs"
tar -C "$NODE_DIR/rootfs" -cf "$NODE_DIR/tiny.tar" .
check "an image" pm import "$NODE_DIR/tiny.tar" localhost/tiny || finish
serve_visitor_address || die "cannot serve in the outside namespace"

note "published ports"
check "a container" start web --network front -p 28080:80 -p 127.0.0.1:28081:80 -p 28053:5353/udp || finish
check "another" start peer --network front
web=$(field web front IPAddress)
check "from peer, by its address" pid_says "$(pid peer)" "http://$web/" hello
check "from outside" outside_says http://$NODE_IP:28080/ hello
check "from the node, 127.0.0.1" says http://127.0.0.1:28081/ hello
check_fails "what is bound to 127.0.0.1 isn't open to the outside" outside_says http://$NODE_IP:28081/ hello
check "from itself" pid_says "$(pid web)" http://$NODE_IP:28080/ hello
in_pid "$(pid web)" python3 "$CLIENTS/net.py" udp-echo 5353 &
check "UDP from outside" retry 5 outside python3 "$CLIENTS/net.py" udp-ask $NODE_IP 28053
check "the outside sees the node's address" pid_says "$(pid peer)" http://$OUTSIDE_IP:8000/ $NODE_IP

note "reload, stop, start, kill"
iptables -t nat -F
check "network reload after a flush" pm network reload web
equal "the address is the same" "$web" "$(field web front IPAddress)"
check "the port is open again" outside_says http://$NODE_IP:28080/ hello
check "stop" pm stop -t 0 web
no_trace "the stopped one has neither lease nor rule" "front/$web" 28080 28053
check "start" pm start web
web=$(field web front IPAddress)
check "the port is open again" outside_says http://$NODE_IP:28080/ hello

note "chosen addresses, two networks, both families"
check "a chosen address and MAC" start chosen --network front --ip 10.78.1.77 --mac-address 02:11:22:33:44:55
equal "the address" 10.78.1.77 "$(field chosen front IPAddress)"
equal "the MAC" 02:11:22:33:44:55 "$(in_pid "$(pid chosen)" ip -o link show eth0 | grep -oE '02:11:22:33:44:55')"
check_fails "an address in use is refused" start clash --network front --ip 10.78.1.77
check "both families" start six --network dual -p 28086:80 -p "[::]:28087:80"
check "IPv6 from outside" retry 5 outside_says "http://[$NODE_IP6]:28087/" hello
check "the outside sees the node's IPv6 address" pid_says "$(pid six)" "http://[$OUTSIDE_IP6]:8000/" $NODE_IP6
check "a second network for peer" pm network connect dual peer
check "six is reached over it" pid_says "$(pid peer)" "http://$(field six dual IPAddress)/" hello
check "away with it" pm network disconnect dual peer
check_fails "eth1 is gone" in_pid "$(pid peer)" ip link show eth1
check "the first network works" pid_says "$(pid peer)" "http://$web/" hello

note "flannel, a pod, podman's default network"
check "a container on flannel's network" start fla --network cbr0 -p 28088:80
equal "the node's subnet" 10.244.7 "$(field fla cbr0 IPAddress | cut -d. -f1-3)"
equal "flannel's MTU" "mtu 1400" "$(in_pid "$(pid fla)" ip -o link show eth0 | grep -oE 'mtu [0-9]+')"
check "from outside" outside_says http://$NODE_IP:28088/ hello
check "from itself" pid_says "$(pid fla)" http://$NODE_IP:28088/ hello
check "a pod" pm pod create --name pair --network front -p 28089:80 --cgroup-parent "$CGROUP_PARENT" \
    --infra-image localhost/tiny --infra-command "/bin/sleep 1000000"
check "a container in it" start one --pod pair
check "from outside" outside_says http://$NODE_IP:28089/ hello
check "podman's default network" start plain -p 28090:80
check "from outside" outside_says http://$NODE_IP:28090/ hello

note "the end"
check "one is killed" pm kill plain
check "away with the pod" pm pod rm -f -t 0 pair
check "away with all" pm rm -f -t 0 -a
no_leftovers
no_trace "nothing names them" "$web/" 10.78.1.77 10.244.7.2/ 2808 28090
finish
