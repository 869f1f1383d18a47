"""`gateway cluster plan`: capacity planning. How many replicas and nodes a load needs, and the latency it then gets."""

from dataclasses import replace
from typing import Any

import click
import msgspec

from gateway.capacity.plan import Node, Plan, ReplicaProfile, ServiceTarget, Workload, make_plan
from gateway.capacity.simulation import Course, Loss, Simulation

SIMULATED_TEXTS = 200_000
positive = click.FloatRange(min=0, min_open=True, max=1e12)
not_negative = click.FloatRange(min=0, max=1e12)

# MiniLM, bfloat16, OpenVINO, two cores of an AMD EPYC (Zen 5): 27,000 in bulk, and single texts should reach at least 60 % of that.
SINGLE_TOKENS_PER_SECOND = 16_000.0


@click.command()
@click.option("--texts-per-second", type=positive, required=True, help="On average.")
@click.option("--tokens", type=positive, required=True, help="Of a text, on average.")
@click.option(
    "--tokens-cv", type=click.FloatRange(0, 10), default=0.7, show_default=True, help="Their standard deviation over that."
)
@click.option(
    "--peak-factor", type=click.FloatRange(1, 1000), default=2, show_default=True, help="Texts at the peak over the average."
)
@click.option(
    "--peak-share", type=click.FloatRange(0, 1, min_open=True), default=0.1, show_default=True, help="Of the time, at the peak."
)
@click.option("--p99-ms", type=positive, default=100, show_default=True, help="What 99 of 100 texts must not exceed.")
@click.option(
    "--replica-tokens-per-second",
    type=positive,
    default=SINGLE_TOKENS_PER_SECOND,
    show_default=True,
    help="What `gateway bench --inputs 1 --clients 32` measures on a replica's cores. Default: MiniLM on two cores.",
)
@click.option("--replica-streams", type=click.IntRange(1, 64), default=2, show_default=True, help="Batches it runs at once.")
@click.option("--replica-cores", type=not_negative, default=2, show_default=True)
@click.option("--replica-gpus", type=not_negative, default=0, show_default=True)
@click.option("--replica-memory-mb", type=positive, default=450, show_default=True)
@click.option("--batch-tokens", type=click.IntRange(1), default=512, show_default=True, help="Of a full batch.")
@click.option("--batch-overhead-ms", type=not_negative, default=0.5, show_default=True, help="Of a batch, beside its tokens' time.")
@click.option("--call-ms", type=not_negative, default=5, show_default=True, help="Of a text outside the engine: HTTP, Ray.")
@click.option("--node-cores", type=not_negative, default=16, show_default=True)
@click.option("--node-gpus", type=not_negative, default=0, show_default=True)
@click.option("--node-memory-gb", type=positive, default=64, show_default=True)
@click.option(
    "--node-losses", type=click.IntRange(0, 1000), default=1, show_default=True, help="Nodes that may be lost at the peak."
)
@click.option("--scaling-seconds", type=not_negative, default=60, show_default=True, help="Until a replica that is ordered serves.")
@click.option("--simulate", is_flag=True, help="Run the plan, event by event, and show what texts take there; some seconds.")
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def plan(*, simulate: bool, seed: int, as_json: bool, **asked: Any) -> None:
    """Compute how many replicas and nodes a load needs.

    It uses the formulas in deploy/ray/sizing.md, which also lists what they leave out. Replace defaults that you know better:
    measure one replica, and compare the p99 shown here with the one you observe.
    """
    load, replica, node, target = parts(asked)
    found = make_plan(load, replica, node, target)
    simulated: dict[str, dict[str, float]] = {}
    if simulate:
        lost = min(target.node_losses * found.replicas_per_node, found.replicas - 1)
        simulated["all_nodes"] = simulated_ms(load, replica, found.replicas, Course(seed=seed))
        simulated["after_losses"] = simulated_ms(
            load, replica, found.replicas, Course(seed=seed, loss=Loss(at_seconds=0, replicas=lost))
        )
    if as_json:
        told = {"plan": found, "load": load, "replica": replica, "node": node, "target": target, "simulated_ms": simulated}
        click.echo(msgspec.json.format(msgspec.json.encode(told), indent=2))
        return
    for line in [*lines(found), *comparison(simulated), *_assumptions(load, replica, target)]:
        click.echo(line)


def parts(asked: dict[str, Any]) -> tuple[Workload, ReplicaProfile, Node, ServiceTarget]:
    load = Workload(**{name: asked[name] for name in ("texts_per_second", "tokens", "tokens_cv", "peak_factor", "peak_share")})
    replica = ReplicaProfile(
        tokens_per_second=asked["replica_tokens_per_second"],
        streams=asked["replica_streams"],
        batch_tokens=asked["batch_tokens"],
        batch_overhead_seconds=asked["batch_overhead_ms"] / 1000,
        call_seconds=asked["call_ms"] / 1000,
        cores=asked["replica_cores"],
        gpus=asked["replica_gpus"],
        memory_mb=asked["replica_memory_mb"],
    )
    node = Node(cores=asked["node_cores"], gpus=asked["node_gpus"], memory_mb=1024 * asked["node_memory_gb"])
    target = ServiceTarget(
        p99_seconds=asked["p99_ms"] / 1000, node_losses=asked["node_losses"], scaling_seconds=asked["scaling_seconds"]
    )
    return load, replica, node, target


def simulated_ms(load: Workload, replica: ReplicaProfile, num_replicas: int, course: Course) -> dict[str, float]:
    """p50 and p99 of a simulated run that ends with the peak, for the peak's share of the time. Losses last from the beginning."""
    seconds = SIMULATED_TEXTS / load.texts_per_second
    course = replace(course, peak_begins_at=seconds * (1 - load.peak_share))
    outcome = Simulation(load, replica, num_replicas, course).run(seconds)
    return {f"p{percent}": round(1000 * outcome.percentile(percent), 2) for percent in (50, 99)}


def lines(found: Plan) -> list[str]:
    return [
        f"replicas           {found.replicas:,}",
        f"nodes              {found.nodes:,}, of {found.replicas_per_node} replicas",
        f"utilisation        {found.utilization_mean:.0%} on average, {found.utilization_peak:.0%} at the peak",
        f"headroom           {found.headroom:.2f} times the peak, all nodes up",
        f"p50, p99           {ms(found.p50_seconds)}, {ms(found.p99_seconds)}",
        f"  nodes lost       {ms(found.p50_seconds_after_losses)}, {ms(found.p99_seconds_after_losses)}",
        f"memory             {found.memory_mb / 1024:,.1f} GB, at most {found.memory_mb_per_node / 1024:,.1f} GB a node",
        f"between peaks      {found.replicas_at_base:,} replicas are enough; with no others there when a peak begins,",
        f"                   texts come to wait {found.step_wait_seconds:,.1f} s until more are",
    ]


def comparison(simulated: dict[str, dict[str, float]]) -> list[str]:
    names = {"all_nodes": "simulated p50, p99", "after_losses": "  nodes lost"}
    return [f"{names[name]:<18} {each['p50']:.1f} ms, {each['p99']:.1f} ms" for name, each in simulated.items()]


def _assumptions(load: Workload, replica: ReplicaProfile, target: ServiceTarget) -> list[str]:
    return [
        "",
        "assumed, as deploy/ray/sizing.md explains:",
        f"  {load.texts_per_second:,g} texts a second of {load.tokens:g} tokens, one a request, none of them cached",
        f"  {load.peak_factor:g} times as many at the peak, which is {load.peak_share:.0%} of the time",
        f"  a peak comes sooner than the {target.scaling_seconds:g} s that scaling takes: all replicas are there before it",
        f"  a replica makes {replica.tokens_per_second:,.0f} tokens a second in {replica.streams} streams",
        f"  and takes {replica.cores:g} cores, {replica.gpus:g} GPUs and {replica.memory_mb:g} MB",
        f"  a call costs {1000 * replica.call_seconds:g} ms outside the engine; a text goes to the emptier of two replicas",
        "  the gateways in front have cores of their own",
    ]


def ms(seconds: float) -> str:
    return f"{1000 * seconds:.1f} ms"
