// Checks custom resources, a JSON list on standard input, against the schemas of their operators. Prints what is wrong with each.
import { ScaledObject } from "@kubernetes-models/keda/keda.sh/v1alpha1";
import { ServiceMonitor } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1";
import { readFileSync } from "node:fs";

const KINDS = { ScaledObject, ServiceMonitor };
const wrong = [];
for (const resource of JSON.parse(readFileSync(0, "utf8"))) {
  try {
    new KINDS[resource.kind](resource).validate();
  } catch (error) {
    wrong.push(`${resource.kind}: ${error.message}`);
  }
}
console.log(JSON.stringify(wrong));
