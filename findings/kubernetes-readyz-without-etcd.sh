#!/usr/bin/env bash
# Kubernetes' API server library 0.36.3 (that of kube-apiserver 1.36.3), etcd 3.7.3: without its etcd, /readyz takes four seconds.
#
# Behaviour: `etcd` and `etcd-readiness` are two checks of /readyz. Each gives up after two seconds, and the checks of one request run
#   one after the other. /livez has the first of them alone and takes two; without it, /livez answers at once.
# Why one guesses otherwise: both flags (--etcd-healthcheck-timeout, --etcd-readycheck-timeout) say two seconds, and a health endpoint
#   is expected to tell at once what is wrong. Whoever asks with a timeout of three seconds, as many a load balancer does, sees no
#   500 that names etcd but a server that does not answer, in the very hour in which that is asked.
# Seen: whole seconds: /readyz 4, /readyz/etcd 2, /readyz/etcd-readiness 2, /livez 2, /livez?exclude=etcd 0; all of them 0 before.
. "$(dirname "$0")/common/etcd.sh"

new_module k8s.io/apiextensions-apiserver@v0.36.3
build api-server k8s.io/apiextensions-apiserver
rm -r "$SCRATCH/module"
install_etcd 3.7.3
cd "$SCRATCH"

start_member only data
port=$(free_port)
# It wants a kube-apiserver to ask who somebody is; nobody is asked here, since everybody may ask for its health.
cat >nobody.kubeconfig <<END
apiVersion: v1
kind: Config
current-context: nobody
contexts: [{name: nobody, context: {cluster: nobody, user: nobody}}]
clusters: [{name: nobody, cluster: {server: "http://127.0.0.1:$(free_port)"}}]
users: [{name: nobody, user: {}}]
END
api-server --etcd-servers "$ETCDCTL_ENDPOINTS" --bind-address 127.0.0.1 --secure-port "$port" --cert-dir certificates \
    --kubeconfig nobody.kubeconfig --authentication-kubeconfig nobody.kubeconfig --authorization-kubeconfig nobody.kubeconfig \
    --authentication-skip-lookup --authorization-always-allow-paths '/readyz*,/livez*' >api-server.log 2>&1 &
SERVERS+=($!)

seconds() { # of an answer, whole
    curl -k -s -o answer -w '%{time_total}' --max-time 30 "https://127.0.0.1:$port$1" | cut -d. -f1
}
for _ in $(seq 120); do
    if [ "$(curl -k -s "https://127.0.0.1:$port/readyz/etcd-readiness")" = ok ]; then break; fi
    sleep 0.5
done
for path in /readyz /livez; do expect "seconds of $path with etcd" 0 "$(seconds $path)"; done
stop_member
expect "seconds of /readyz without etcd" 4 "$(seconds /readyz)"
expect "what it says of both" 2 "$(grep -c '^\[-\]etcd' answer)"
for path in /readyz/etcd /readyz/etcd-readiness /livez; do expect "seconds of $path" 2 "$(seconds $path)"; done
expect "seconds of /livez without that check" 0 "$(seconds '/livez?exclude=etcd')"
