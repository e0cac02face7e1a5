"""Checks of config/kubernetes that a schema cannot make, and those of the schemas. Prints `ok NAME` or `FAIL NAME: why`, and ends with
`N passed, N failed`. usage: manifests.py FOLDER PGWEIR"""

import pathlib
import re
import subprocess
import sys
import tempfile

import kubernetes_validate
import yaml

ROOT, PGWEIR = pathlib.Path(sys.argv[1]), sys.argv[2]
# The oldest with sidecars switched on, and the newest whose schemas are here.
VERSIONS = ["1.29", kubernetes_validate.latest_version()]
# The fields of the Prometheus Operator's resources that may be used, from its published API: it has no schema in Kubernetes.
MONITORS = {
    "ServiceMonitor": ("endpoints", {"endpoints", "jobLabel", "namespaceSelector", "selector", "sampleLimit", "targetLabels"}),
    "PodMonitor": ("podMetricsEndpoints", {"podMetricsEndpoints", "jobLabel", "namespaceSelector", "selector", "sampleLimit"}),
}
ENDPOINT_FIELDS = {"port", "path", "interval", "scrapeTimeout", "scheme", "honorLabels", "relabelings", "metricRelabelings"}
PROBES = {"startupProbe": "/startupz", "readinessProbe": "/readyz", "livenessProbe": "/livez"}
DRAIN_DEADLINE_SECONDS = 25

passed = failed = 0


def check(name, mistakes):
    """Counts one check: good if there are no mistakes."""
    global passed, failed
    mistakes = [mistake for mistake in mistakes if mistake]
    if mistakes:
        failed += 1
        print(f"FAIL {name}: {'; '.join(map(str, mistakes))}")
    else:
        passed += 1
        print(f"ok {name}")


def documents(folder):
    """The manifests of a folder by file; what kustomize reads is apart."""
    files = sorted(folder.glob("*.yaml"))
    return {file: [doc for doc in yaml.safe_load_all(file.read_text()) if doc] for file in files}


def schema_mistakes(doc, version):
    try:
        kubernetes_validate.validate(doc, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        yield f"{version}: {'.'.join(map(str, error.path))}: {error.message}"
    except (kubernetes_validate.SchemaNotFoundError, kubernetes_validate.VersionNotSupportedError) as error:
        yield error.message


def monitor_mistakes(doc):
    endpoints, fields = MONITORS[doc["kind"]]
    if doc["apiVersion"] != "monitoring.coreos.com/v1":
        yield "apiVersion"
    yield from (f"unknown field {field}" for field in doc["spec"].keys() - fields)
    for endpoint in doc["spec"].get(endpoints, []) or [{}]:
        yield from (f"unknown field {field}" for field in endpoint.keys() - ENDPOINT_FIELDS)
        if endpoint.get("port") != "metrics":
            yield "it does not scrape the port called metrics"


def hardening_mistakes(pod):
    context = pod.get("securityContext", {})
    if not context.get("runAsNonRoot") or context.get("seccompProfile") != {"type": "RuntimeDefault"}:
        yield "the pod's securityContext"
    if pod.get("automountServiceAccountToken") is not False:
        yield "a token of the service account"
    if pod.get("terminationGracePeriodSeconds", 30) <= DRAIN_DEADLINE_SECONDS:
        yield "ended before drain_deadline"
    if not pod.get("topologySpreadConstraints"):
        yield "no topologySpreadConstraints"
    for container in pod.get("initContainers", []) + pod["containers"]:
        own, name = container.get("securityContext", {}), container["name"]
        if (
            own.get("allowPrivilegeEscalation") is not False
            or own.get("readOnlyRootFilesystem") is not True
            or own.get("capabilities") != {"drop": ["ALL"]}
        ):
            yield f"{name}: securityContext"
        resources = container.get("resources", {})
        if not {"cpu", "memory"} <= resources.get("requests", {}).keys() or "memory" not in resources.get("limits", {}):
            yield f"{name}: resources"


def probe_mistakes(pod):
    for container in pod.get("initContainers", []) + pod["containers"]:
        if container["name"] != "pgweir":
            continue
        for probe, path in PROBES.items():
            got = container.get(probe, {}).get("httpGet", {})
            if got.get("path") != path or got.get("port") != "metrics":
                yield f"{probe} is not GET {path}"
        if {"name": "metrics", "containerPort": 9127} not in container["ports"]:
            yield "no port called metrics"
        return
    yield "no container called pgweir"


def reference_mistakes(docs):
    """Names and labels that must be the same in two manifests."""
    names = {(doc["kind"], doc["metadata"]["name"]) for doc in docs}
    labels = [doc["spec"]["template"]["metadata"]["labels"] for doc in docs if doc["kind"] == "Deployment"]
    for doc in docs:
        spec = doc.get("spec", {})
        selector = spec.get("podSelector") or spec.get("selector")
        if selector:
            wanted = selector.get("matchLabels", selector)
            if not any(wanted.items() <= have.items() for have in labels):
                yield f"{doc['kind']} {doc['metadata']['name']} selects no pod"
        if doc["kind"] == "Deployment":
            for volume in spec["template"]["spec"]["volumes"]:
                for kind, key in (("ConfigMap", "name"), ("Secret", "secretName")):
                    name = volume.get(kind[0].lower() + kind[1:], {}).get(key)
                    if name and (kind, name) not in names:
                        yield f"no {kind} {name}"


def kustomization_mistakes(folder, files):
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    listed, there = set(kustomization["resources"]), {file.name for file in files}
    yield from (f"{name} is not there" for name in listed - there)
    yield from (f"{name} is not listed" for name in there - listed)


def configuration_mistakes(files, variables):
    """`pgweir check` of what a container would read: of the files, in a folder where they are, or of variables alone."""
    with tempfile.TemporaryDirectory() as folder:
        placed = lambda text: re.sub(r"/(etc/pgweir(?:-users)?|run/secrets/database)/", f"{folder}/", text)
        for name, text in files.items():
            path = pathlib.Path(folder, name)
            path.write_text(placed(text))
            path.chmod(0o600)
        configuration = f"{folder}/pgweir.toml" if "pgweir.toml" in files else "env:"
        variables = {name: placed(value) for name, value in variables.items()}
        ran = subprocess.run([PGWEIR, "check", configuration], env={"PGWEIR_CONTAINER": "1", **variables}, capture_output=True, text=True, timeout=60)
        wrong = [line for line in ran.stdout.splitlines() if line.lower().startswith(("error", "warning"))]
        # How many files may be open is the machine's, not the manifest's.
        yield from (line for line in wrong if "open files" not in line)
        if ran.returncode:
            yield f"pgweir check ends with {ran.returncode} {ran.stderr}"


def main():
    for folder in sorted(path for path in ROOT.iterdir() if path.is_dir()):
        files = documents(folder)
        files.pop(folder / "kustomization.yaml")
        check(f"{folder.name}: kustomization lists every file", kustomization_mistakes(folder, files))
        docs = [doc for docs in files.values() for doc in docs]
        for doc in docs:
            name = f"{folder.name}: {doc['kind']} {doc['metadata']['name']}"
            if doc["kind"] in MONITORS:
                check(f"{name} has only fields of the operator's API", monitor_mistakes(doc))
                continue
            check(f"{name} is valid", (mistake for version in VERSIONS for mistake in schema_mistakes(doc, version)))
            if doc["kind"] == "Deployment":
                pod = doc["spec"]["template"]["spec"]
                check(f"{name} is hardened", hardening_mistakes(pod))
                check(f"{name} has probes", probe_mistakes(pod))
                held = [(other.get("data") or other.get("stringData")) for other in docs if other["kind"] in ("ConfigMap", "Secret")]
                held = {key: text for data in held for key, text in data.items()}
                pgweir = [c for c in pod.get("initContainers", []) + pod["containers"] if c["name"] == "pgweir"][0]
                variables = {item["name"]: item["value"] for item in pgweir.get("env", [])}
                check(f"{name} has a configuration without mistakes", configuration_mistakes(held, variables))
        if not any(doc["kind"] in MONITORS for doc in docs):
            check(f"{folder.name}: names and labels agree", reference_mistakes(docs))
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed > 0)


main()
