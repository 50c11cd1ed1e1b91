/**
 * What the host does for a prefill on the GPU, the device's own time left out: `node --import tsx bench/models/host.ts [config] [--tokens 512] [--rounds 40] [--json file]`.
 * The device is hollow (hollow.ts), so no GPU is needed; kernels are chosen as on an H200. Says how long a prefill keeps the host busy, when the device gets its first
 * work, and the ops and dispatches of it.
 */
import { writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { core as mx, nn } from "../../src/index.ts";
import { checkConfig } from "../../src/llm/config.ts";
import { generateStep } from "../../src/llm/index.ts";
import { architectureOf } from "../../src/llm/models/index.ts";
import { stats } from "../../src/schedule/run.ts";
import { type Result, header, machine, spread, summarize } from "../harness.ts";
import { promptIds } from "../peers/engine.ts";
import { type ConfigName, configs } from "./configs.ts";
import { given, useHollowDevice } from "./hollow.ts";

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: { json: { type: "string" }, tokens: { type: "string", default: "512" }, rounds: { type: "string", default: "40" }, warm: { type: "string", default: "10" } },
});
const name = (positionals[0] ?? "qwen3-0.6b") as ConfigName;
const tokens = Number(options.tokens);
const rounds = Number(options.rounds);

/** A model of this shape, 4-bit g128 with bfloat16 scales; on the hollow device weights cost nothing. */
function makeModel(): ReturnType<ReturnType<typeof architectureOf>["create"]> {
  const { schema, create } = architectureOf("qwen3", name);
  const model = create(checkConfig(schema, configs[name], name), []);
  model.apply((a) => a.astype(mx.bfloat16));
  nn.quantize(model, 128, 4);
  model.eval();
  mx.eval(model.parameters());
  return model;
}

useHollowDevice();
mx.setDefaultDevice("gpu");
const model = makeModel();
const ids = promptIds(tokens, configs[name].vocab_size);

interface Sample {
  readonly ms: number;
  /** Until the device has something to do. */
  readonly first: number;
}
function prefill(): Sample {
  given.submissions = 0;
  const start = performance.now();
  const steps = generateStep(ids, model, { maxTokens: 2 });
  steps.next();
  const end = performance.now();
  steps.return();
  return { ms: end - start, first: given.firstAt - start };
}

console.log(header(machine()));
for (let i = 0; i < Number(options.warm); i++) prefill();
const before = { dispatches: stats.dispatches, fallbacks: stats.fallbacks };
prefill();
const dispatches = stats.dispatches - before.dispatches;
const samples = Array.from({ length: rounds }, () => prefill());
const results: Result[] = [];
for (const [what, values] of [["host time of a prefill", samples.map((s) => s.ms)], ["first submission of a prefill", samples.map((s) => s.first)]] as const) {
  const value = summarize(values);
  results.push({ name: `host ${name}, ${what} of ${tokens}`, unit: "ms", better: "lower", value, extra: { dispatches, submissions: given.submissions, fallbacks: stats.fallbacks - before.fallbacks } });
  console.log(`${`${what} of ${tokens}`.padEnd(40)} ${spread(value)} ms`);
}
console.log(`  ${dispatches} dispatches in ${given.submissions} submissions, ${stats.fallbacks - before.fallbacks} fallbacks`);
if (options.json) writeFileSync(options.json, `${JSON.stringify({ results }, null, 1)}\n`);
