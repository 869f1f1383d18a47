"""The dashboard, told once: four questions, and the panels that answer each. Its output is deploy/grafana/gateway.json.

It reads the recorded series of deploy/prometheus/recording.yml and the metrics of deploy/metrics.md. A panel's description says
what to look for, since whoever opens it at night did not write it.
"""

import json
import sys
from collections.abc import Iterator
from typing import Any

# Every sum is one of a namespace, and of a cluster where there is such a label: staging is not production. Absent is empty.
JOB = 'cluster=~"$cluster", namespace=~"$namespace", job=~"$job"'
WHERE = "cluster, namespace"
TOP = f"topk by ({WHERE}) (10, "
WHOSE = "{{cluster}} {{namespace}}"  # each legend begins so
MODEL = f'{JOB}, model=~"$model"'
OURS = "and on (cluster, namespace, job, instance) gateway_build_info"  # others have process_ metrics too
WIDTH, HEIGHT = 24, 8
SOURCE = {"type": "prometheus", "uid": "${source}"}

# (title, unit, description, {legend: query}); a row's panels share its width.
Panel = tuple[str, str, str, dict[str, str]]
QUESTIONS: dict[str, list[Panel]] = {
    "Is it well?": [
        (
            "Replicas that answer",
            "short",
            "Scraped now, of those seen within the hour. Fewer than there should be: GatewayDown.",
            {"answering": f"count by ({WHERE}) (gateway_build_info{{{JOB}}})"},
        ),
        (
            "Requests answered 5xx",
            "percentunit",
            "Of embedding requests. The promise is 0.1 %.",
            {
                "five minutes": f"gateway:error_ratio:rate5m{{{JOB}}}",
                "one hour": f"gateway:error_ratio:rate1h{{{JOB}}}",
                "three days": f"gateway:error_ratio:rate3d{{{JOB}}}",
            },
        ),
        (
            "Requests by outcome",
            "reqps",
            "ok, client_gone, or an error's code. client_gone: callers do not wait as long as it takes.",
            {"{{outcome}}": f"sum by ({WHERE}, outcome) (rate(gateway_requests_total{{{MODEL}}}[$__rate_interval]))"},
        ),
        (
            "Turned away",
            "reqps",
            "For want of room or time, by reason. server_overloaded: add replicas.",
            {"{{reason}}": f"sum by ({WHERE}, reason) (rate(gateway_rejections_total{{{JOB}}}[$__rate_interval]))"},
        ),
        (
            "Alerts",
            "short",
            "Firing now.",
            {"{{alertname}} {{model}}": f'ALERTS{{{JOB}, alertname=~"Gateway.*", alertstate="firing"}}'},
        ),
        (
            "Refused for a key's limit",
            "reqps",
            "By limit. Callers with retries wait and come back; the key that does not is in the next row.",
            {"{{limit}}": f"sum by ({WHERE}, limit) (rate(gateway_limited_total{{{JOB}}}[$__rate_interval]))"},
        ),
    ],
    "Who is using it?": [
        (
            "Keys near their end",
            "percentunit",
            "The share of its budget that a key has used: the ten nearest to it. Which expire next: `gateway keys list`.",
            {"{{key}}": f"{TOP}max by ({WHERE}, key) (gateway_key_budget_used_ratio{{{JOB}}}))"},
        ),
        (
            "Refused by key",
            "reqps",
            "The ten most refused, and why: rate_limit_exceeded and insufficient_quota are their own terms.",
            {
                "{{key}} {{reason}}": f"{TOP}sum by ({WHERE}, key, reason) "
                f"(rate(gateway_key_refusals_total{{{JOB}}}[$__rate_interval])))"
            },
        ),
        (
            "Requests a second by key",
            "reqps",
            "The ten largest, by public id.",
            {"{{key}}": f"{TOP}sum by ({WHERE}, key) (rate(gateway_key_requests_total{{{JOB}}}[$__rate_interval])))"},
        ),
        (
            "Tokens a second by model",
            "short",
            "What is asked for, cached inputs included.",
            {"{{model}}": f"sum by ({WHERE}, model) (gateway:tokens:rate5m{{{MODEL}}})"},
        ),
        (
            "Tokens a second by key",
            "short",
            "The ten largest, by public id: `gateway keys list` has their names.",
            {"{{key}}": f"{TOP}sum by ({WHERE}, key) (rate(gateway_key_tokens_total{{{JOB}}}[$__rate_interval])))"},
        ),
        (
            "Requests a second by model",
            "reqps",
            "Requests for vectors, scores or tokens. unknown: they failed before a model was known.",
            {"{{model}}": f"sum by ({WHERE}, model) (gateway:requests:rate5m{{{JOB}}})"},
        ),
        (
            "How long inputs are",
            "short",
            "Tokens an input. Much beyond what the model reads at once: vectors are averages of windows.",
            {
                "median": f"histogram_quantile(0.5, sum by ({WHERE}, le) (rate("
                f"gateway_input_length_tokens_bucket{{{MODEL}}}[$__rate_interval])))",
                "one in twenty": f"histogram_quantile(0.95, sum by ({WHERE}, le) (rate("
                f"gateway_input_length_tokens_bucket{{{MODEL}}}[$__rate_interval])))",
            },
        ),
        (
            "Without a valid key",
            "reqps",
            "invalid_api_key that jumps: a revoked key in use, or somebody guesses.",
            {"{{reason}}": f"sum by ({WHERE}, reason) (rate(gateway_auth_failures_total{{{JOB}}}[$__rate_interval]))"},
        ),
        (
            "Other paths",
            "reqps",
            "What is asked beside embeddings; unmatched is a client with a wrong base_url.",
            {
                "{{route}} {{status}}": f"sum by ({WHERE}, route, status) (rate(gateway_http_requests_total"
                f'{{{JOB}, route!="/v1/embeddings"}}[$__rate_interval]))'
            },
        ),
    ],
    "What is slow?": [
        (
            "How long requests take",
            "s",
            "From the first byte in to the last byte out, all sizes together.",
            {
                "median": f"gateway:request_seconds:p50_5m{{{JOB}}}",
                "one in a hundred": f"gateway:request_seconds:p99_5m{{{JOB}}}",
            },
        ),
        (
            "By stage, one in twenty",
            "s",
            "queue above compute: want of capacity. tokenize: very long texts. upstream: the other server.",
            {"{{model}} {{stage}}": f"gateway:stage_seconds:p95_5m{{{MODEL}}}"},
        ),
        (
            "Backlog",
            "s",
            "Seconds of work that wait. What KEDA scales by; above five for long, an alert.",
            {"{{model}}": f"gateway:backlog_seconds:max{{{MODEL}}}"},
        ),
        (
            "Under way",
            "short",
            "Requests being answered, and inputs that wait for a batch.",
            {
                "requests": f"sum by ({WHERE}) (gateway_http_requests_in_flight{{{JOB}}})",
                "inputs of {{model}}": f"sum by ({WHERE}, model) (gateway_queue_inputs{{{MODEL}}})",
            },
        ),
    ],
    "Why?": [
        (
            "Batches: tokens",
            "short",
            "The mean. Far below the largest under load: the device is not filled.",
            {
                "{{model}}": f"sum by ({WHERE}, model) (rate(gateway_batch_tokens_sum{{{MODEL}}}[$__rate_interval]))"
                f" / sum by ({WHERE}, model) (rate(gateway_batch_tokens_count{{{MODEL}}}[$__rate_interval]))",
                "largest of {{model}}": f"min by ({WHERE}, model) (gateway_max_batch_tokens{{{MODEL}}})",
            },
        ),
        (
            "Batches: padding",
            "short",
            "Padded tokens over real ones, the mean; 1 wastes nothing.",
            {
                "{{model}}": f"sum by ({WHERE}, model) (rate(gateway_batch_padding_ratio_sum{{{MODEL}}}[$__rate_interval]))"
                f" / sum by ({WHERE}, model) (rate(gateway_batch_padding_ratio_count{{{MODEL}}}[$__rate_interval]))"
            },
        ),
        (
            "Cache: share of inputs",
            "percentunit",
            "Inputs whose vector was there, or just being made.",
            {"{{model}}": f"gateway:cache_hit_ratio:rate5m{{{MODEL}}}"},
        ),
        (
            "Cache: memory",
            "bytes",
            "By replica. Full with few hits: give it more.",
            {"{{instance}}": f"gateway_cache_bytes{{{JOB}}}"},
        ),
        (
            "Event loop",
            "s",
            "How late it is. Above 0.1: something blocks every request of that replica.",
            {"{{instance}}": f"gateway_event_loop_lag_seconds{{{JOB}}}"},
        ),
        (
            "Device threads that died",
            "short",
            "Within the hour. Look for device_died in the log.",
            {"{{instance}} {{model}}": f"increase(gateway_device_restarts_total{{{MODEL}}}[1h])"},
        ),
        (
            "Memory",
            "bytes",
            "Resident, by replica. Growth over hours under an even load is a defect.",
            {"{{instance}}": f"process_resident_memory_bytes{{{JOB}}} {OURS}"},
        ),
        (
            "Cores in use",
            "short",
            "By replica. At what it was given while the backlog grows: add a replica.",
            {"{{instance}}": f"rate(process_cpu_seconds_total{{{JOB}}}[$__rate_interval]) {OURS}"},
        ),
        (
            "Open files and connections",
            "percentunit",
            "Of what the process may have. Beyond it, connections fail.",
            {"{{instance}}": f"process_open_fds{{{JOB}}} / process_max_fds{{{JOB}}} {OURS}"},
        ),
        (
            "Connections",
            "short",
            "Open now, beside how many may be. At the limit, those that waited longest are closed for newcomers.",
            {
                "{{instance}} {{state}}": f"gateway_open_connections{{{JOB}}}",
                "limit of {{instance}}": f"gateway_max_connections{{{JOB}}}",
            },
        ),
        (
            "Connections cut or refused",
            "cps",
            "By reason. server_overloaded: refused, all places are taken by requests. made_room above some a second: a flood.",
            {"{{reason}}": f"sum by ({WHERE}, reason) (rate(gateway_connections_cut_total{{{JOB}}}[$__rate_interval]))"},
        ),
        (
            "What it depends on",
            "short",
            "1 is well: Redis can be reached, and the configuration read last is in effect. Rows of usage that wait: 0 is well.",
            {
                "Redis of {{instance}}": f"gateway_limiter_up{{{JOB}}}",
                "configuration of {{instance}}": f"gateway_config_last_reload_successful{{{JOB}}}",
                "usage that waits in {{instance}}": f"gateway_usage_pending_rows{{{JOB}}}",
            },
        ),
        (
            "Fingerprints",
            "short",
            "Replicas by the vectors they give: one line a model, or their vectors must not share an index.",
            {"{{model}} {{fingerprint}}": f"count by ({WHERE}, model, fingerprint) (gateway_model_info{{{MODEL}}})"},
        ),
        (
            "Fidelity",
            "short",
            "The worst cosine to sentence-transformers in float32.",
            {"{{model}}": f"min by ({WHERE}, model) (gateway_model_fidelity_cosine{{{MODEL}}})"},
        ),
    ],
    "And the servers behind it?": [
        (
            "Upstreams",
            "short",
            "1 is up. Nothing where every model is served here.",
            {"{{upstream}}": f"min by ({WHERE}, upstream) (gateway_upstream_up{{{JOB}}})"},
        ),
        (
            "What they answer",
            "reqps",
            "Requests to each by outcome. rate_limited is its limit, timeout that it is slow, connect the network.",
            {
                "{{upstream}} {{outcome}}": f"sum by ({WHERE}, upstream, outcome) (rate("
                f"gateway_upstream_requests_total{{{JOB}}}[$__rate_interval]))"
            },
        ),
        (
            "What waits for them",
            "short",
            "Requests they have not answered yet.",
            {"{{upstream}}": f"sum by ({WHERE}, upstream) (gateway_upstream_outstanding_requests{{{JOB}}})"},
        ),
        (
            "Fallbacks of groups",
            "reqps",
            "Requests that another than a group's first member served. For long: the first is ill.",
            {"{{model}}": f"sum by ({WHERE}, model) (rate(gateway_group_fallbacks_total{{{MODEL}}}[$__rate_interval]))"},
        ),
        (
            "Cooling down, and tried again",
            "short",
            "Addresses cooling down after failures, and retries a second. Retries are 10 % of traffic at most.",
            {
                "{{upstream}} {{address}}": f"sum by ({WHERE}, upstream, address) (gateway_upstream_breaker_open{{{JOB}}})",
                "retries of {{upstream}}": f"sum by ({WHERE}, upstream) "
                f"(rate(gateway_upstream_retries_total{{{JOB}}}[$__rate_interval]))",
            },
        ),
        (
            "Clusters",
            "short",
            "1 where calls to the model's Ray cluster make sense. Nothing where no model is on one.",
            {"{{model}}": f"min by ({WHERE}, model) (gateway_cluster_up{{{MODEL}}})"},
        ),
        (
            "Replicas on a cluster",
            "short",
            "By what Ray Serve says of them, as the gateway that sees most of them tells.",
            {"{{model}} {{state}}": f"max by ({WHERE}, model, state) (gateway_cluster_replicas{{{MODEL}}})"},
        ),
        (
            "What replicas answer",
            "reqps",
            "Calls by outcome, each try by itself. lost: a replica or its node went away in mid-call.",
            {
                "{{model}} {{outcome}}": f"sum by ({WHERE}, model, outcome) "
                f"(rate(gateway_cluster_calls_total{{{MODEL}}}[$__rate_interval]))"
            },
        ),
        (
            "What waits for replicas",
            "short",
            "Calls they have not answered yet.",
            {"{{model}}": f"sum by ({WHERE}, model) (gateway_cluster_outstanding_calls{{{MODEL}}})"},
        ),
    ],
}


def panels() -> Iterator[dict[str, Any]]:
    y = 0
    for question, answers in QUESTIONS.items():
        yield {"type": "row", "title": question, "collapsed": False, "gridPos": {"h": 1, "w": WIDTH, "x": 0, "y": y}, "panels": []}
        y += 1
        per_line = 4 if len(answers) % 4 == 0 else 3
        for number, panel in enumerate(answers):
            width = WIDTH // per_line
            place = {"h": HEIGHT, "w": width, "x": width * (number % per_line), "y": y + HEIGHT * (number // per_line)}
            yield drawn(panel, place)
        y += HEIGHT * -(-len(answers) // per_line)


def drawn(panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    title, unit, description, queries = panel
    return {
        "type": "timeseries",
        "title": title,
        "description": description,
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": unit, "min": 0 if unit != "short" else None}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}},
        "targets": [
            {"refId": chr(ord("A") + number), "datasource": SOURCE, "expr": query, "legendFormat": f"{WHOSE} {legend}"}
            for number, (legend, query) in enumerate(queries.items())
        ],
    }


def variable(name: str, query: str) -> dict[str, Any]:
    return {
        "name": name,
        "type": "query",
        "datasource": SOURCE,
        "query": query,
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def dashboard() -> dict[str, Any]:
    numbered = [{"id": number, **panel} for number, panel in enumerate(panels(), start=1)]
    return {
        "uid": "embeddings-gateway",
        "title": "Embeddings gateway",
        "description": "Is it well, who is using it, what is slow, why. Written by deploy/grafana/dashboard.py.",
        "tags": ["embeddings", "gateway"],
        "schemaVersion": 39,
        "version": 1,
        "editable": False,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {
            "list": [
                {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus", "current": {}},
                variable("cluster", "label_values(gateway_build_info, cluster)"),
                variable("namespace", 'label_values(gateway_build_info{cluster=~"$cluster"}, namespace)'),
                variable("job", 'label_values(gateway_build_info{cluster=~"$cluster", namespace=~"$namespace"}, job)'),
                variable("model", f"label_values(gateway_model_info{{{JOB}}}, model)"),
            ]
        },
        "panels": numbered,
    }


if __name__ == "__main__":
    json.dump(dashboard(), sys.stdout, indent=1, ensure_ascii=False)
    sys.stdout.write("\n")
