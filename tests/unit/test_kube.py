"""The API client against a scripted HTTP server: what it asks for, and what it makes of the answers."""

import base64
import gc
import json
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from clusterguard.clusters.kube import KubeClient
from clusterguard.drills.diagnostics import log_of
from clusterguard.drills.steps.http import ask_service
from clusterguard.errors import (
    ClusterError,
    ClusterUnreachableError,
    ConfigError,
    ConflictError,
    ForbiddenError,
    ResourceNotFoundError,
    WaitTimeoutError,
)
from endless_server import Jumping

AGGREGATED = "apidiscovery.k8s.io"


def status(code, reason, message="no"):
    return code, {"kind": "Status", "code": code, "reason": reason, "message": message}


def entry(name, kind, *, scope="Namespaced", short=(), verbs=("list", "create")):
    return {
        "resource": name,
        "responseKind": {"group": "", "version": "", "kind": kind},
        "scope": scope,
        "singularResource": kind.lower(),
        "shortNames": list(short),
        "verbs": list(verbs),
        "subresources": [{"subresource": "status"}],
    }


def group(name, *versions):
    return {
        "metadata": {"name": name},
        "versions": [
            {"version": version, "freshness": fresh, "resources": found} for version, fresh, found in versions
        ],
    }


CORE = [
    group(
        "",
        (
            "v1",
            "Current",
            [entry("pods", "Pod", short=["po"]), entry("configmaps", "ConfigMap", short=["cm"])],
        ),
    )
]
GROUPS = [
    group("apps", ("v1", "Current", [entry("deployments", "Deployment", short=["deploy"])])),
    group(
        "autoscaling",
        ("v2", "Current", [entry("horizontalpodautoscalers", "HorizontalPodAutoscaler")]),
        (
            "v1",
            "Current",
            [entry("horizontalpodautoscalers", "HorizontalPodAutoscaler"), entry("olds", "Old")],
        ),
    ),
    group("velero.io", ("v1", "Current", [entry("backups", "Backup"), entry("pods", "Pod")])),
    group("cnpg.io", ("v1", "Current", [entry("backups", "Backup")])),
    group("metrics.k8s.io", ("v1beta1", "Stale", [])),
]


class FakeApi:
    """Answers ``(method, path)`` with what was scripted: a list is used up one by one, its last stays."""

    def __init__(self):
        self.requests = []
        self.answers = {
            ("GET", "/api"): (200, {"kind": "APIGroupDiscoveryList", "items": CORE}),
            ("GET", "/apis"): (200, {"kind": "APIGroupDiscoveryList", "items": GROUPS}),
            ("GET", "/version"): (200, {"gitVersion": "v1.36.3"}),
        }
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def answer(self):
                parts = urlsplit(self.path)
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                query = {key: values[0] for key, values in parse_qs(parts.query).items()}
                api.requests.append((self.command, parts.path, query, body, dict(self.headers)))
                answer = api.answers.get((self.command, parts.path), status(404, "NotFound"))
                if isinstance(answer, list):
                    answer = answer.pop(0) if len(answer) > 1 else answer[0]
                if callable(answer):
                    answer(self, query)
                    return
                code, content, *headers = answer
                data = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(code)
                for key, value in (headers[0] if headers else {}).items():
                    self.send_header(key, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        for verb in ("GET", "POST", "PATCH", "PUT", "DELETE"):
            setattr(Handler, f"do_{verb}", Handler.answer)
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def sent(self, method):
        return [
            (path, query, json.loads(body or b"null")) for verb, path, query, body, _ in self.requests if verb == method
        ]


def write_kubeconfig(path, url, user=None):
    path.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "fake",
                "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "me"}}],
                "clusters": [{"name": "fake", "cluster": {"server": url}}],
                "users": [{"name": "me", "user": user if user is not None else {"token": "secret-token"}}],
            }
        )
    )
    return path


@pytest.fixture
def fake():
    api = FakeApi()
    yield api
    api.close()


@pytest.fixture
def api(fake, tmp_path):
    with KubeClient.from_kubeconfig(write_kubeconfig(tmp_path / "kubeconfig", fake.url)) as client:
        client._sleep = lambda _: None
        yield client


PODS = "/api/v1/namespaces/shop/pods"


def test_importing_it_loads_no_sdk():
    heavy = {"kubernetes", "urllib3", "yaml", "requests"}
    code = f"import sys, clusterguard.clusters.kube; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---- discovery -------------------------------------------------------------------------------------------


def test_two_requests_tell_every_kind_in_its_preferred_version(api, fake):
    versions = {str(resource): resource.version for resource in api.resources()}
    assert versions["HorizontalPodAutoscaler.autoscaling"] == "v2"
    assert versions["Old.autoscaling"] == "v1"
    api.resources()
    assert [path for _, path, *_ in fake.requests] == ["/api", "/apis"]
    assert AGGREGATED in fake.requests[0][4]["Accept"]


def test_groups_whose_api_does_not_answer_are_told(api):
    assert api.discovery_gaps() == ("metrics.k8s.io/v1beta1",)


def test_kinds_are_found_as_people_write_them(api):
    for text, path in (
        ("Pod", PODS),
        ("pods", PODS),
        ("po", PODS),
        ("Pod.velero.io", "/apis/velero.io/v1/namespaces/shop/pods"),
        ("deploy", "/apis/apps/v1/namespaces/shop/deployments"),
        ("Deployment.apps", "/apis/apps/v1/namespaces/shop/deployments"),
        ("deployments.v1.apps", "/apis/apps/v1/namespaces/shop/deployments"),
        ("Backup.cnpg.io", "/apis/cnpg.io/v1/namespaces/shop/backups"),
    ):
        assert api.resource(text).path("shop") == path


def test_manifests_may_use_a_version_that_is_not_preferred(api):
    assert api.resource("HorizontalPodAutoscaler", api_version="autoscaling/v1").version == "v1"


def test_an_ambiguous_kind_is_refused_with_the_choices(api):
    with pytest.raises(ConfigError) as caught:
        api.resource("Backup")
    assert (caught.value.code, caught.value.fields["candidates"]) == (
        "ambiguous-kind",
        ["Backup.velero.io", "Backup.cnpg.io"],
    )


def test_an_unknown_kind_is_refused_with_a_suggestion(api):
    with pytest.raises(ResourceNotFoundError, match="no kind Deploymnt") as caught:
        api.resource("Deploymnt")
    assert caught.value.hint == "did you mean Deployment.apps?"


def test_a_kind_that_was_defined_meanwhile_is_found(api, fake):
    api.resources()
    fake.answers["GET", "/apis"] = (
        200,
        {
            "kind": "APIGroupDiscoveryList",
            "items": [group("new.io", ("v1", "Current", [entry("widgets", "Widget")]))],
        },
    )
    assert api.resource("Widget").api_version == "new.io/v1"


def test_servers_without_aggregated_discovery_are_asked_version_by_version(api, fake):
    def listing(group_version, *entries):
        return 200, {"kind": "APIResourceList", "groupVersion": group_version, "resources": list(entries)}

    def classic(name, kind, **more):
        return {"name": name, "kind": kind, "namespaced": True, "verbs": ["list"], "singularName": "", **more}

    versions = [{"groupVersion": "apps/v1beta1"}, {"groupVersion": "apps/v1"}]
    metrics = {"name": "metrics.k8s.io", "versions": [{"groupVersion": "metrics.k8s.io/v1"}]}
    fake.answers |= {
        ("GET", "/api"): (200, {"kind": "APIVersions", "versions": ["v1"]}),
        ("GET", "/apis"): (
            200,
            {
                "kind": "APIGroupList",
                "groups": [{"name": "apps", "preferredVersion": versions[1], "versions": versions}, metrics],
            },
        ),
        ("GET", "/api/v1"): listing("v1", classic("pods", "Pod", shortNames=["po"]), classic("pods/log", "Pod")),
        ("GET", "/apis/apps/v1"): listing("apps/v1", classic("deployments", "Deployment")),
        ("GET", "/apis/apps/v1beta1"): listing(
            "apps/v1beta1", classic("deployments", "Deployment"), classic("olds", "Old")
        ),
        ("GET", "/apis/metrics.k8s.io/v1"): status(503, "ServiceUnavailable"),
    }
    assert [f"{resource} {resource.version}" for resource in api.resources()] == [
        "Pod v1",
        "Deployment.apps v1",
        "Old.apps v1beta1",
    ]
    assert api.resource("po").subresources == {"log"}
    assert api.discovery_gaps() == ("metrics.k8s.io/v1",)


# ---- reading ---------------------------------------------------------------------------------------------


def page(names, token="", version="7"):
    items = [{"metadata": {"name": name}} for name in names]
    return 200, {"metadata": {"continue": token, "resourceVersion": version}, "items": items}


def test_lists_are_read_page_by_page_with_kind_and_version_put_back(api, fake):
    fake.answers["GET", PODS] = [page("ab", "next"), page("c")]
    found = list(api.list(api.resource("Pod"), "shop", label_selector="app=web", page_size=2))
    assert [(item["metadata"]["name"], item["kind"], item["apiVersion"]) for item in found] == [
        ("a", "Pod", "v1"),
        ("b", "Pod", "v1"),
        ("c", "Pod", "v1"),
    ]
    queries = [query for _, path, query, *_ in fake.requests if path == PODS]
    assert queries == [
        {"labelSelector": "app=web", "limit": "2"},
        {"labelSelector": "app=web", "limit": "2", "continue": "next"},
    ]


def test_a_list_that_expires_half_way_is_no_short_list(api, fake):
    fake.answers["GET", PODS] = [page("ab", "next"), status(410, "Expired")]
    with pytest.raises(ConflictError, match="410 Expired"):
        list(api.list(api.resource("Pod"), "shop"))


def test_metadata_alone_can_be_asked_for(api, fake):
    fake.answers["GET", PODS] = page("a")
    list(api.list(api.resource("Pod"), "shop", metadata_only=True))
    assert "PartialObjectMetadataList" in fake.requests[-1][4]["Accept"]


def test_the_clock_of_the_server_is_its_date_header(api):
    assert abs(api.server_time().timestamp() - time.time()) < 60


def test_ready_tells_the_failing_checks(api, fake):
    fake.answers["GET", "/readyz"] = (
        500,
        b"[+]ping ok\n[-]etcd failed: reason withheld\nreadyz check failed",
    )
    assert api.ready().failing == "[-]etcd failed: reason withheld"
    fake.answers["GET", "/readyz"] = (200, b"ok")
    assert api.ready()


def test_a_server_that_has_not_loaded_its_rules_yet_is_not_ready(api, fake):
    fake.answers["GET", "/readyz"] = status(403, "Forbidden", 'User "kubernetes-admin" cannot get path "/readyz"')
    assert not api.ready()
    assert "kubernetes-admin" in api.ready().failing


def test_a_server_that_is_not_there_is_not_ready(tmp_path):
    with KubeClient.from_kubeconfig(write_kubeconfig(tmp_path / "k", "http://127.0.0.1:1")) as client:
        assert "refused" in client.ready().failing
        with pytest.raises(ClusterUnreachableError, match="refused"):
            client.server_version()


# ---- watching --------------------------------------------------------------------------------------------


def stream(*lines, until=None, cut=False):
    def answer(handler, _):
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for line in lines:
            data = line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n"
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            handler.wfile.flush()
        if until is not None:
            until.wait()
        if cut:
            handler.close_connection = True
        else:
            handler.wfile.write(b"0\r\n\r\n")

    return answer


def event(kind, name="a", version="8"):
    return {"type": kind, "object": {"metadata": {"name": name, "resourceVersion": version}}}


def test_changes_come_as_they_are_cut_into_chunks(api, fake):
    whole = json.dumps(event("ADDED")).encode() + b"\n" + json.dumps(event("DELETED")).encode() + b"\n"
    fake.answers["GET", PODS] = stream(whole[:10], whole[10:60], whole[60:])
    found = list(api.watch(api.resource("Pod"), "shop", resource_version="7", timeout_seconds=3))
    assert [found.type for found in found] == ["ADDED", "DELETED"]
    assert fake.requests[-1][2] == {
        "watch": "true",
        "allowWatchBookmarks": "true",
        "timeoutSeconds": "3",
        "resourceVersion": "7",
    }


def test_a_watch_shorter_than_a_second_ends_in_silence(api, fake):
    seen = threading.Event()
    fake.answers["GET", PODS] = stream(event("ADDED"), until=seen)
    assert len(list(api.watch(api.resource("Pod"), "shop", timeout_seconds=0.2))) == 1
    seen.set()  # up to now the server would have gone on


def test_an_expired_watch_says_so(api, fake):
    gone = {
        "type": "ERROR",
        "object": {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"},
    }
    fake.answers["GET", PODS] = stream(event("ADDED"), gone)
    with pytest.raises(ConflictError, match="too old"):
        list(api.watch(api.resource("Pod"), "shop"))


def test_a_broken_watch_is_no_quiet_end(api, fake):
    fake.answers["GET", PODS] = stream(event("ADDED"), cut=True)
    with pytest.raises(ClusterUnreachableError):
        list(api.watch(api.resource("Pod"), "shop"))


def test_an_abandoned_watch_leaves_the_client_usable(api, fake):
    done = threading.Event()
    fake.answers["GET", PODS] = stream(event("ADDED"), until=done)
    with closing(api.watch(api.resource("Pod"), "shop")) as events:
        next(events)
    assert api.server_version() == "v1.36.3"
    done.set()


def test_waiting_for_an_object_ends_with_the_change(api, fake):
    fake.answers["GET", PODS] = [page("a"), stream(event("MODIFIED"), event("DELETED"))]
    assert (
        api.wait_for(
            api.resource("Pod"),
            "a",
            "shop",
            until=lambda pod: pod is None,
            what="pod gone",
            timeout_seconds=5,
        )
        is None
    )


def test_waiting_in_vain_tells_what_was_seen_last(api, fake):
    fake.answers["GET", PODS] = [page("a"), stream(), page("a"), stream()]
    ticks = iter([0, 1, 6, 7, 8])
    with pytest.raises(WaitTimeoutError) as caught:
        api.wait_for(
            api.resource("Pod"),
            "a",
            "shop",
            until=lambda pod: pod is None,
            what="pod gone",
            timeout_seconds=5,
            clock=lambda: next(ticks),
        )
    assert (caught.value.what, caught.value.seconds, caught.value.last_seen) == ("pod gone", 5, "Pod a")


# ---- writing ---------------------------------------------------------------------------------------------


def config_map(**metadata):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", **metadata}}


def test_apply_is_server_side_and_forced(api, fake):
    fake.answers["PATCH", "/api/v1/namespaces/shop/configmaps/a"] = (200, {})
    api.apply(config_map(namespace="shop", managedFields=[{}]))
    [(_, query, body)] = fake.sent("PATCH")
    assert query == {"fieldManager": "clusterguard", "force": "true"}
    assert "managedFields" not in body["metadata"]
    assert fake.requests[-1][4]["Content-Type"] == "application/apply-patch+yaml"


@pytest.mark.parametrize(
    ("own", "given", "path"),
    [
        ({}, None, "default"),
        ({}, "shop", "shop"),
        ({"namespace": "shop"}, None, "shop"),
        ({"namespace": "shop"}, "shop", "shop"),
    ],
)
def test_where_an_object_goes(api, fake, own, given, path):
    fake.answers["POST", f"/api/v1/namespaces/{path}/configmaps"] = (201, {"kind": "ConfigMap"})
    assert api.create(config_map(**own), namespace=given) == {"kind": "ConfigMap"}


@pytest.mark.parametrize(
    ("manifest", "namespace", "seen"),
    [
        ({"kind": "ConfigMap", "metadata": {"name": "a"}}, None, "without apiVersion"),
        ({"apiVersion": "v1", "kind": "ConfigMap"}, None, "without metadata.name"),
        (config_map(namespace="shop"), "office", "for namespace shop, not office"),
    ],
)
def test_an_incomplete_manifest_is_refused_before_anything_is_sent(api, fake, manifest, namespace, seen):
    with pytest.raises(ConfigError, match=seen):
        api.apply(manifest, namespace=namespace)
    assert fake.sent("PATCH") == []


def test_delete_can_be_bound_to_the_very_object(api, fake):
    fake.answers["DELETE", f"{PODS}/a"] = (200, {})
    api.delete(api.resource("Pod"), "a", "shop", grace_seconds=0, uid="u-1")
    [(_, _, body)] = fake.sent("DELETE")
    assert body["gracePeriodSeconds"] == 0
    assert body["preconditions"] == {"uid": "u-1"}


def test_scale_changes_the_subresource_alone(api, fake):
    fake.answers["PATCH", "/apis/apps/v1/namespaces/shop/deployments/web/scale"] = (200, {})
    api.scale(api.resource("deploy"), "web", "shop", replicas=0)
    assert fake.sent("PATCH")[0][2] == {"spec": {"replicas": 0}}


# ---- errors ----------------------------------------------------------------------------------------------


def test_answers_become_errors_of_ours(api, fake):
    pods = api.resource("Pod")
    for answer, error, hint in (
        (status(400, "BadRequest"), ClusterError, None),
        (status(401, "Unauthorized"), ClusterError, "credentials"),
        (status(403, "Forbidden", 'User "me" cannot list resource "pods"'), ForbiddenError, "RBAC"),
        (status(403, "Forbidden", "exceeded quota"), ForbiddenError, None),
        (status(404, "NotFound"), ResourceNotFoundError, None),
        (status(405, "MethodNotAllowed"), ClusterError, None),
        (status(409, "AlreadyExists"), ConflictError, None),
        (status(410, "Gone"), ConflictError, "again"),
        (status(422, "Invalid"), ClusterError, None),
        (status(429, "TooManyRequests"), ClusterUnreachableError, "busy"),
        (status(500, "InternalError"), ClusterUnreachableError, None),
        (status(503, "ServiceUnavailable"), ClusterUnreachableError, None),
        ((302, b"", {"Location": "/login"}), ClusterError, "redirect"),
        ((502, b"<html>bad gateway</html>"), ClusterUnreachableError, None),
        ((200, b"<html>log in</html>"), ClusterError, "API server"),
        ((200, b"[]"), ClusterError, "API server"),
    ):
        fake.answers["GET", f"{PODS}/a"] = answer
        with pytest.raises(ClusterError) as caught:
            api.get(pods, "a", "shop")
        assert type(caught.value) is error, answer
        assert (hint is None and caught.value.hint is None) or hint in caught.value.hint, answer


def test_errors_name_the_request_and_what_the_server_said(api, fake):
    fake.answers["GET", f"{PODS}/a"] = status(422, "Invalid", "spec.x: wrong")
    with pytest.raises(
        ClusterError,
        match=r"GET http://127.0.0.1:\d+/api/v1/namespaces/shop/pods/a: 422 Invalid: spec.x: wrong",
    ):
        api.get(api.resource("Pod"), "a", "shop")


def test_a_busy_server_is_asked_again_when_it_says_so(api, fake):
    slept = []
    api._sleep = slept.append
    busy = (*status(429, "TooManyRequests"), {"Retry-After": "1"})
    fake.answers["GET", f"{PODS}/a"] = [busy, busy, (200, {"kind": "Pod"})]
    assert api.get(api.resource("Pod"), "a", "shop") == {"kind": "Pod"}
    assert slept == [1, 1]


def test_but_not_for_ever(api, fake):
    fake.answers["GET", f"{PODS}/a"] = (*status(429, "TooManyRequests"), {"Retry-After": "1"})
    with pytest.raises(ClusterUnreachableError, match="429"):
        api.get(api.resource("Pod"), "a", "shop")
    assert len([1 for _, path, *_ in fake.requests if path == f"{PODS}/a"]) == 6


def hang_up(handler, _):
    handler.close_connection = True


def test_a_connection_that_died_is_opened_again_for_reading_only(api, fake):
    fake.answers["GET", f"{PODS}/a"] = [hang_up, (200, {"kind": "Pod"})]
    assert api.get(api.resource("Pod"), "a", "shop") == {"kind": "Pod"}
    fake.answers["DELETE", f"{PODS}/a"] = [hang_up, (200, {})]
    with pytest.raises(ClusterUnreachableError):
        api.delete(api.resource("Pod"), "a", "shop")


def test_a_silent_server_is_unreachable_after_the_time_out(api, fake):
    fake.answers["GET", "/slow"] = lambda *_: time.sleep(1)
    with pytest.raises(ClusterUnreachableError, match="no answer in time"):
        api.request("GET", "/slow", timeout_seconds=0.1)


# ---- kubeconfig ------------------------------------------------------------------------------------------


def test_the_token_is_sent_and_never_told(api, fake):
    fake.answers["GET", f"{PODS}/a"] = status(401, "Unauthorized")
    with pytest.raises(ClusterError) as caught:
        api.get(api.resource("Pod"), "a", "shop")
    assert fake.requests[-1][4]["Authorization"] == "Bearer secret-token"
    assert "secret-token" not in f"{caught.value!r} {api!r}"


def test_credentials_come_from_an_exec_plugin(fake, tmp_path):
    credential = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {"token": "from-plugin"},
    }
    plugin = {
        "apiVersion": credential["apiVersion"],
        "command": "echo",
        "args": [json.dumps(credential)],
        "interactiveMode": "Never",
    }
    with KubeClient.from_kubeconfig(write_kubeconfig(tmp_path / "k", fake.url, {"exec": plugin})) as client:
        client.server_version()
    assert fake.requests[-1][4]["Authorization"] == "Bearer from-plugin"


def test_keys_of_a_kubeconfig_are_in_memory_as_long_as_its_client(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    key = base64.b64encode(b"a key").decode()
    user = {"client-certificate-data": key, "client-key-data": key}
    path = write_kubeconfig(tmp_path / "kubeconfig", "https://127.0.0.1:1", user)

    def load():
        client = KubeClient.from_kubeconfig(path)
        return client, Path(client.connection().key)

    # The official client remembers by their contents the files that it wrote.
    with ThreadPoolExecutor(4) as pool:
        loaded = list(pool.map(lambda _: load(), range(12)))
    assert [file.read_bytes() for _, file in loaded] == [b"a key"] * 12
    assert [each for each in tmp_path.rglob("*") if each.is_file()] == [path]
    for client, _ in loaded:
        client.close()
    assert loaded[0][1].read_bytes() == b"a key"
    files = [file for _, file in loaded]
    del loaded, client
    gc.collect()
    assert not any(file.exists() for file in files)


def test_a_token_file_is_read_again_and_its_last_token_lasts_while_it_is_replaced(fake, tmp_path):
    (tmp_path / "token").write_text("first\n")
    user = {"tokenFile": "token", "token": "stale"}
    with KubeClient.from_kubeconfig(write_kubeconfig(tmp_path / "k", fake.url, user)) as client:
        for content, expected in (("first\n", "first"), ("second", "second"), (None, "second"), ("", "second")):
            (tmp_path / "token").unlink(missing_ok=True)
            if content is not None:
                (tmp_path / "token").write_text(content)
            client.server_version()
            assert fake.requests[-1][4]["Authorization"] == f"Bearer {expected}"
            assert client.connection().headers == {"Authorization": f"Bearer {expected}"}


@pytest.mark.parametrize("content", [None, "", "\n"])
def test_a_token_file_without_a_token_is_named(tmp_path, content):
    if content is not None:
        (tmp_path / "token").write_text(content)
    path = write_kubeconfig(tmp_path / "k", "http://127.0.0.1:1", {"tokenFile": "token"})
    with pytest.raises(ConfigError, match="token file"):
        KubeClient.from_kubeconfig(path)


def test_several_kubeconfigs_are_one(fake, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    for folder, token in ((first, "of the first"), (second, "of the second")):
        folder.mkdir()
        (folder / "token").write_text(token)
    contexts = [{"name": "fake", "context": {"cluster": "fake", "user": "me"}}]
    (first / "config").write_text(json.dumps({"contexts": contexts}))
    write_kubeconfig(second / "config", fake.url, {"tokenFile": "token"})
    with KubeClient.from_kubeconfig(f"{tmp_path}/none:{first}/config:{second}/config") as client:
        client.server_version()
    assert fake.requests[-1][4]["Authorization"] == "Bearer of the second"


def test_a_plugin_that_fails_is_an_error_and_not_an_anonymous_client(tmp_path):
    plugin = {"apiVersion": "client.authentication.k8s.io/v1", "command": "false", "interactiveMode": "Never"}
    with pytest.raises(ClusterError) as caught:
        KubeClient.from_kubeconfig(write_kubeconfig(tmp_path / "k", "http://127.0.0.1:1", {"exec": plugin}))
    assert (caught.value.code, caught.value.fields) == ("no-credentials", {"command": "false"})


@pytest.mark.parametrize(
    ("content", "context", "seen"),
    [
        (None, None, "no such file"),
        ("", None, "empty"),
        ("a: [", None, "flow node"),
        ("[]", None, "kubeconfig"),
        ("{}", None, "kubeconfig"),
        ("whole", "other", "other"),
    ],
)
def test_a_kubeconfig_that_cannot_be_used_is_named(tmp_path, content, context, seen):
    path = tmp_path / "kubeconfig"
    if content == "whole":
        write_kubeconfig(path, "http://127.0.0.1:1")
    elif content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=seen) as caught:
        KubeClient.from_kubeconfig(path, context=context)
    assert str(path) in caught.value.message


def test_a_proxy_of_the_environment_is_not_asked_for_loopback_addresses(fake, tmp_path, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with KubeClient.from_kubeconfig(write_kubeconfig(tmp_path / "k", fake.url)) as client:
        assert client.server_version() == "v1.36.3"


# ---- a Service, through the API server -------------------------------------------------------------------

PROXY = "/api/v1/namespaces/shop/services/http:web:80/proxy"


@pytest.mark.parametrize("code", [200, 301, 404, 500, 503])
def test_whatever_a_service_answers_is_an_answer(fake, api, code):
    fake.answers["GET", f"{PROXY}/"] = (code, b"from the pod", {"X-Pod": "web-0"})
    answer = ask_service(api, "shop", "web", port=80)
    assert (answer.status, answer.body, answer.headers["x-pod"]) == (code, b"from the pod", "web-0")


@pytest.mark.parametrize(
    ("code", "error"),
    [(404, ResourceNotFoundError), (503, ClusterUnreachableError), (403, ForbiddenError)],
)
def test_what_the_api_server_itself_says_is_no_answer_of_the_service(fake, api, code, error):
    fake.answers["GET", f"{PROXY}/"] = (
        code,
        {"kind": "Status", "apiVersion": "v1", "message": "no endpoints available"},
    )
    with pytest.raises(ClusterError, match="no endpoints available") as raised:
        ask_service(api, "shop", "web", port=80)
    assert type(raised.value) is error


def test_a_path_goes_to_the_service_with_its_query(fake, api):
    fake.answers["GET", f"{PROXY}/a%20b"] = (200, b"")
    ask_service(api, "shop", "web", port=80, path="/a b?c=d&e=f")
    assert [(path, query) for verb, path, query, *_ in fake.requests if "proxy" in path] == [
        (f"{PROXY}/a%20b", {"c": "d", "e": "f"})
    ]


# ---- answers that do not end -----------------------------------------------------------------------------


def endless(piece, *, pause=0.0, chunked=True):
    """Answer with one piece after the other, until nobody listens any more."""

    def answer(handler, _):
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.send_header(*(("Transfer-Encoding", "chunked") if chunked else ("Connection", "close")))
        handler.end_headers()
        handler.close_connection = True
        with suppress(OSError):
            while True:
                handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
                handler.wfile.flush()
                time.sleep(pause)

    return answer


@pytest.mark.parametrize("chunked", [True, False], ids=["chunked", "until it closes"])
def test_a_service_that_streams_is_cut_when_its_time_is_over(fake, api, chunked):
    """It never stays silent for long, so no limit on silence would ever end it."""
    fake.answers["GET", f"{PROXY}/"] = endless(b"data: tick\n\n", pause=0.02, chunked=chunked)
    answer = ask_service(api, "shop", "web", port=80, timeout_seconds=0.3)
    assert answer.status == 200
    assert answer.cut
    assert answer.body.startswith(b"data: tick")
    assert api.server_version() == "v1.36.3"  # what was still on its way is not taken for this answer


def test_a_service_that_says_too_much_is_cut(fake, api):
    fake.answers["GET", f"{PROXY}/"] = endless(b"x" * 65_536)
    answer = ask_service(api, "shop", "web", port=80)
    assert answer.cut
    assert 0 < len(answer.body) <= 1 << 20


def test_what_ends_in_time_is_whole(fake, api):
    fake.answers["GET", f"{PROXY}/"] = stream(b"a" * 100_000, b"b")
    answer = ask_service(api, "shop", "web", port=80)
    assert (answer.cut, len(answer.body)) == ("", 100_001)


@pytest.mark.parametrize("code", [200, 500])
def test_an_api_server_that_says_too_much_is_an_error(fake, api, monkeypatch, code):
    monkeypatch.setattr("clusterguard.clusters.kube_transport._MOST_BYTES", 100_000)
    fake.answers["GET", "/much"] = endless(b"x" * 65_536)
    with pytest.raises(ClusterError) as raised:
        api.request("GET", "/much")
    assert raised.value.code == "answer-cut"


def test_an_api_server_that_does_not_come_to_an_end_is_an_error(fake, api):
    fake.answers["GET", "/long"] = endless(b"x")
    api._clock = Jumping(60)
    with pytest.raises(ClusterError) as raised:
        api.request("GET", "/long")
    assert raised.value.code == "answer-cut"


def test_an_answer_that_breaks_off_is_no_short_answer(fake, api):
    fake.answers["GET", "/short"] = lambda handler, _: (
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nConnection: close\r\n\r\n{}")
        and setattr(handler, "close_connection", True)
    )
    with pytest.raises(ClusterUnreachableError):
        api.request("GET", "/short")


def test_a_watch_that_nobody_ends_is_ended_here(fake, api):
    """Something between us and the API server may swallow its end."""
    fake.answers["GET", PODS] = endless(json.dumps(event("MODIFIED")).encode() + b"\n")
    pods = api.resource("Pod")
    api._clock = Jumping(1)
    assert list(api.watch(pods, "shop", timeout_seconds=10))


def test_an_event_that_does_not_end_is_an_error(fake, api, monkeypatch):
    monkeypatch.setattr("clusterguard.clusters.kube_transport._LONGEST_EVENT", 100_000)
    fake.answers["GET", PODS] = endless(b"x" * 65_536)
    with pytest.raises(ClusterError) as raised:
        list(api.watch(api.resource("Pod"), "shop"))
    assert raised.value.code == "answer-cut"


def test_a_log_is_asked_for_within_bounds(fake, api):
    fake.answers["GET", f"{PODS}/a/log"] = (200, b"line\n")
    log_of(api, "shop", "a")
    assert fake.requests[-1][2]["limitBytes"] == str(1 << 20)


# ---- kinds that come, and other protocols ----------------------------------------------------------------


def test_a_kind_whose_definition_was_just_made_is_waited_for(fake, api):
    late = [*GROUPS, group("shop.io", ("v1", "Current", [entry("menus", "Menu")]))]
    before, after = ((200, {"kind": "APIGroupDiscoveryList", "items": items}) for items in (GROUPS, late))
    fake.answers["GET", "/apis"] = [before, before, before, after]
    assert api.await_kind({"apiVersion": "shop.io/v1", "kind": "Menu"}).plural == "menus"


def test_a_kind_that_never_comes_is_not_found(api):
    with pytest.raises(ResourceNotFoundError):
        api.await_kind({"apiVersion": "shop.io/v1", "kind": "Menu"})


def test_another_protocol_reaches_the_same_server_as_the_same_user(fake, api):
    connection = api.connection()
    assert connection.server == fake.url
    assert dict(connection.headers) == {"Authorization": "Bearer secret-token"}
    assert "secret-token" not in repr(connection)
