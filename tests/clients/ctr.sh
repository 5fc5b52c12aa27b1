#!/bin/bash
# ctr.sh PLUGIN_DIR: containers by `ctr run --cni`, once per version it speaks, on bridge and on flannel networks.
#
# In a throw-away node (lib.sh of $IPCNI_SHARED/clients). ctr deletes with an empty CNI_NETNS; nothing may stay all the same.
shared=${IPCNI_SHARED:?names the folder with clients/lib.sh}
. "$shared/clients/lib.sh"
plugins=$(readlink -f "${1:?usage: ctr.sh PLUGIN_DIR}")
node_enter "$plugins"
containerd_start "$plugins"
serve_visitor_address || die "cannot serve in the outside namespace"

conflist() { # VERSION KIND
    local first='{"type": "flannel", "delegate": {"hairpinMode": true, "isDefaultGateway": true}}'
    [ "$2" = flannel ] || first='{"type": "bridge", "bridge": "br-ctr", "isDefaultGateway": true, "ipMasq": true, "mtu": 1450,
        "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.244.6.0/24"}], [{"subnet": "fd00:244:0:6::/64"}]]}}'
    echo "{\"cniVersion\": \"$1\", \"name\": \"net\", \"plugins\": [$first,
        {\"type\": \"portmap\", \"capabilities\": {\"portMappings\": true}}]}" >/etc/cni/net.d/10-net.conflist
}
run() { # ID COMMAND...
    local id=$1
    shift
    ctr run --cni --rm --cgroup "$CGROUP_PARENT/$id" localhost/tiny:1 "$id" "$@"
}
pid() { ctr task ls | awk -v id="$1" '$1 == id && $3 == "RUNNING" {print $2}'; }
address() { in_pid "$(pid "$1")" ip -o -"$2" addr show eth0 scope global | awk '{split($4, a, "/"); print a[1]}'; }
is_up() { [ -n "$(pid "$1")" ] && [ -n "$(address "$1" 6)" ]; }

mkdir -p /run/flannel
printf '%s\n' FLANNEL_NETWORK=10.244.0.0/16 FLANNEL_SUBNET=10.244.6.1/24 FLANNEL_IPV6_NETWORK=fd00:244::/48 \
    FLANNEL_IPV6_SUBNET=fd00:244:0:6::1/64 FLANNEL_MTU=1450 FLANNEL_IPMASQ=false >/run/flannel/subnet.env
round=0
for version in 0.3.1 0.4.0 1.0.0; do
    for kind in bridge flannel; do
        note "$kind, $version"
        conflist $version $kind
        round=$((round + 1))
        run a$round /bin/httpd -f -p 80 -h /www >"$NODE_DIR/a.log" 2>&1 & first=$!
        run b$round /bin/sleep 1000 >"$NODE_DIR/b.log" 2>&1 & second=$!
        check "a container" retry 15 is_up a$round || { cat "$NODE_DIR/a.log"; finish; }
        check "another" retry 15 is_up b$round
        a=$(address a$round 4) a6=$(address a$round 6) b=$(address b$round 4)
        equal "the network's MTU" "mtu 1450" "$(in_pid "$(pid a$round)" ip -o link show eth0 | grep -oE 'mtu [0-9]+')"
        check "loopback is up" in_pid "$(pid a$round)" busybox ping -c 1 -W 1 127.0.0.1
        check "a's page from the node" says "http://$a/" hello
        check "a's page from b" pid_says "$(pid b$round)" "http://$a/" hello
        check "a's page from b over IPv6" pid_says "$(pid b$round)" "http://[$a6]/" hello
        check "the outside sees the node's address" pid_says "$(pid b$round)" http://$OUTSIDE_IP:8000/ $NODE_IP
        check "the outside sees the node's IPv6 address" pid_says "$(pid b$round)" "http://[$OUTSIDE_IP6]:8000/" $NODE_IP6
        ctr task kill -s SIGKILL a$round
        ctr task kill -s SIGKILL b$round
        wait $first $second
        no_leftovers
        no_trace "nothing names them" "default-a$round" "default-b$round" "$a/" "$b/"
        ip link del "$([ $kind = bridge ] && echo br-ctr || echo cni0)"
    done
done

note "eight at once, and one that fails"
here=
for i in 1 2 3 4 5 6 7 8; do
    run m$i /bin/sh -c 'ip -4 addr show eth0 | grep -o "inet [0-9.]*"; sleep 2' >"$NODE_DIR/m$i.log" 2>&1 &
    here+=" $!"
done
wait $here
equal "eight different addresses" 8 "$(cat "$NODE_DIR"/m?.log | grep '^inet ' | sort -u | wc -l)"
no_leftovers
run bad /bin/sh -c 'exit 7' >/dev/null 2>&1
equal "a command's status comes back" 7 $?
no_leftovers
finish
