#!/bin/bash
# cri.sh PLUGIN_DIR: pods as the kubelet makes them, by containerd's CRI plugin, on bridge and on flannel networks.
#
# In a throw-away node (lib.sh of $IPCNI_SHARED/clients: namespaces with a private /etc, /var, /opt, /run). What the Go
# plugins leave behind when a namespace is gone must be gone here too, so there are no lesser checks for that.
shared=${IPCNI_SHARED:?names the folder with clients/lib.sh}
. "$shared/clients/lib.sh"
. "$shared/clients/cri-lib.sh"
plugins=$(readlink -f "${1:?usage: cri.sh PLUGIN_DIR}")
node_enter "$plugins"
containerd_start "$plugins"
serve_visitor_address || die "cannot serve in the outside namespace"

conflist() { # VERSION NAME RANGES ROUTES: bridge and portmap
    network "$2" <<Y
{"cniVersion": "$1", "name": "$2", "plugins": [
  {"type": "bridge", "bridge": "br-$2", "isGateway": true, "ipMasq": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "ranges": $3, "routes": $4}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
Y
}
port() { echo "\"port_mappings\": [{\"container_port\": 80, \"host_port\": $1}]"; }
namespace_of() { # POD: the path of its network namespace
    cri PodSandboxStatus "{\"pod_sandbox_id\": \"$(pod "$1")\", \"verbose\": 1}" | json info.info | python3 -c '
import json, sys
print(*(n["path"] for n in json.load(sys.stdin)["runtimeSpec"]["linux"]["namespaces"] if n["type"] == "network"))'
}
lose() { # POD: its processes and its namespace vanish
    local path
    path=$(namespace_of "$1")
    kill -9 "$(pod_pid "$1")"
    umount "$path"
    rm -f "$path"
}

note "bridge and portmap, both families, once per version"
for version in 0.3.1 0.4.0 1.0.0; do
    rm -rf /var/lib/cni/networks
    conflist $version two '[[{"subnet": "10.77.1.0/24"}], [{"subnet": "fd00:77:1::/64"}]]' '[{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]'
    check "$version: a pod with a host port" run_pod a "$(port 28080)" || finish
    check "another without" run_pod b
    check "containers in them" serve_in a
    check "..." serve_in b
    a=$(pod_ip a) b=$(pod_ip b)
    check "host port from outside" outside_says http://$NODE_IP:28080/ hello
    check "host port from outside over IPv6" outside_says "http://[$NODE_IP6]:28080/" hello
    check "host port on 127.0.0.1" says http://127.0.0.1:28080/ hello
    check "host port from the pod itself" pid_says "$(pod_pid a)" http://$NODE_IP:28080/ hello
    check "from pod to pod" pid_says "$(pod_pid b)" "http://$a/" hello
    check "the outside sees the node's address" pid_says "$(pod_pid b)" http://$OUTSIDE_IP:8000/ $NODE_IP
    check "end both" eval "end_pod a && end_pod b"
    no_leftovers
    no_trace "nothing names them" "$pod_a" "$pod_b" "$a/" "$b/" 28080
done

note "what goes wrong on nodes"
before=$(state)
check "a pod" run_pod lost "$(port 28081)"
lose lost
check "its end, though its namespace is gone" end_pod lost
equal "all of it is gone: masquerading, host port, lease" "$before" "$(state)"

check "a pod" run_pod swept "$(port 28082)"
iptables -t nat -F && iptables -t nat -X
ip link del br-two
check "its end, though rules and bridge are gone" end_pod swept
no_leftovers

check "a pod" run_pod again "$(port 28083)"
check "a container in it" serve_in again
containerd_kill
check "it is reached while containerd is dead" outside_says http://$NODE_IP:28083/ hello
containerd_run
check "containerd knows it again" retry 5 sh -c "ctr -n k8s.io task ls | grep -q $pod_again"
lose again
check "its end after both" end_pod again
no_leftovers

note "addresses run out"
conflist 1.0.0 few '[[{"subnet": "10.77.2.0/24", "rangeStart": "10.77.2.10", "rangeEnd": "10.77.2.11"}]]' '[{"dst": "0.0.0.0/0"}]'
check "one" run_pod one
check "two" run_pod two "$(port 28084)"
before=$(state)
check_fails "three is refused" run_pod three
check "... saying so" grep -q "no IP addresses available in range set: 10.77.2.10-10.77.2.11" "$NODE_DIR/error"
equal "... and has left nothing" "$before" "$(state)"
check "end the first" end_pod one
check "three gets its place" run_pod three
equal "... and address" 10.77.2.10 "$(pod_ip three)"
end_all
no_leftovers

note "flannel, both families, eight at once"
mkdir -p /run/flannel
printf '%s\n' FLANNEL_NETWORK=10.244.0.0/16 FLANNEL_SUBNET=10.244.5.1/24 FLANNEL_IPV6_NETWORK=fd00:244::/48 \
    FLANNEL_IPV6_SUBNET=fd00:244:0:5::1/64 FLANNEL_MTU=1450 FLANNEL_IPMASQ=true >/run/flannel/subnet.env
network cbr0 <<'Y'
{"name": "cbr0", "cniVersion": "1.0.0", "plugins": [
  {"type": "flannel", "delegate": {"hairpinMode": true, "isDefaultGateway": true}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
Y
here=
for i in 1 2 3 4 5 6 7 8; do
    (run_pod f$i "$(port 2910$i)" && pod f$i >"$NODE_DIR/f$i.id") &
    here+=" $!"
done
wait $here
for i in 1 2 3 4 5 6 7 8; do eval "pod_f$i=\$(cat "$NODE_DIR/f$i.id" 2>/dev/null)"; done
equal "eight addresses of the node's subnet" 8 "$(for i in 1 2 3 4 5 6 7 8; do pod_ip f$i; done | sort -u | grep -c '^10\.244\.5\.')"
equal "eight notes of the delegate" 8 "$(find /var/lib/cni/flannel -type f | wc -l)"
check "a container in the last" serve_in f8
check "its host port from outside" outside_says http://$NODE_IP:29108/ hello
check "its host port from outside over IPv6" outside_says "http://[$NODE_IP6]:29108/" hello
check "its host port from itself" pid_says "$(pod_pid f8)" http://$NODE_IP:29108/ hello
check "it reaches the first" in_pid "$(pod_pid f8)" busybox ping -c 1 -W 2 "$(pod_ip f1)"
equal "its MTU" "mtu 1450" "$(in_pid "$(pod_pid f8)" ip -o link show eth0 | grep -oE 'mtu [0-9]+')"
lose f7
rm /run/flannel/subnet.env
here=
for i in 1 2 3 4 5 6 7 8; do end_pod f$i >/dev/null & here+=" $!"; done
wait $here
equal "no note of the delegate is left" "" "$(find /var/lib/cni/flannel -type f)"
no_leftovers
check_fails "without a subnet.env no pod starts" run_pod late
check "... saying so" grep -q "/run/flannel/subnet.env" "$NODE_DIR/error"
no_leftovers
finish
