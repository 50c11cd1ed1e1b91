/**
 * node --import tsx bench/plans.ts [--samples 15] [--json]: what plans of compiled functions save. A training step of a small network and a decode step of the model in
 * models/, compiled, with plans and without (MLX_PLAN_CACHE=0), in turns. Results are compared first: they must have the same bits.
 */
import { parseArgs } from "node:util";
import { core as mx, nn, optimizers, type MxArray } from "../src/index.ts";
import { type CausalLM, generateStep, load, makePromptCache } from "../src/llm/index.ts";
import { type Summary, digits, duration, measureTogether, ratios, summarize } from "./harness.ts";

const { values: options } = parseArgs({ options: { samples: { type: "string", default: "15" }, json: { type: "boolean", default: false } } });

/** Work that can be done again and again; `state` is what it has computed so far. */
interface Work {
  step(): void;
  state(): number[];
}

function training(width: number, batch: number): Work {
  mx.random.seed(5);
  const model = new nn.Sequential(new nn.Linear(16, width), nn.relu, new nn.Linear(width, width), nn.relu, new nn.Linear(width, 4));
  const optimizer = new optimizers.Adam(1e-3);
  optimizer.init(model.trainableParameters());
  const [x, y] = [mx.random.normal([batch, 16]), mx.random.randint(0, 4, [batch])];
  mx.eval(model.parameters(), optimizer.state, x, y);
  const lossAndGradients = nn.valueAndGrad(model, (a: MxArray, b: MxArray) => mx.mean(nn.losses.crossEntropy(model.forward(a), b)));
  const state = [model, optimizer.state] as never;
  const compiled = mx.compile((a: MxArray, b: MxArray): MxArray => {
    const [loss, gradients] = lossAndGradients(a, b);
    optimizer.update(model, gradients);
    return loss as MxArray;
  }, false, state, state);
  let last = 0;
  const arrays = (): MxArray[] => collect([model.parameters(), optimizer.state]);
  return {
    step: () => {
      const old = arrays();
      const loss = compiled(x, y);
      mx.dispose(old);
      mx.eval(loss, arrays());
      last = loss.item() as number;
      loss.dispose();
    },
    state: () => [last, ...arrays().flatMap((a) => [a.astype(mx.float32).sum().item() as number])],
  };
}
function collect(tree: unknown, found: MxArray[] = []): MxArray[] {
  if (tree instanceof mx.array) found.push(tree as MxArray);
  else if (typeof tree === "object" && tree !== null) for (const child of Object.values(tree)) collect(child, found);
  return found;
}

function decoding(model: CausalLM): Work {
  const cache = makePromptCache(model);
  for (const _ of generateStep([300, 301, 302], model, { maxTokens: 1, promptCache: cache }));
  mx.eval(cache.map((c) => c.state));
  const start = cache[0]?.offset as number;
  const compiled = mx.compile((token: MxArray, position: MxArray, length: MxArray) => mx.argmax(model.nextLogits(token, cache, { position, length }), -1), false, cache as never, cache as never);
  const tokens = [300];
  return {
    step: () => {
      // A short sentence over and over: the work of a step stays the same.
      if ((cache[0]?.offset as number) >= start + 32) for (const c of cache) c.trim(32);
      for (const c of cache) c.reserve();
      const offset = cache[0]?.offset as number;
      const old = cache.map((c) => c.state);
      const args = [mx.array([[tokens[tokens.length - 1] as number]], mx.int32), mx.array([offset], mx.int32), mx.array([offset + 1], mx.int32)] as const;
      const next = compiled(...args);
      mx.dispose(old);
      mx.eval(next, cache.map((c) => c.state));
      tokens.push(next.item() as number);
      mx.dispose(args, next);
      for (const c of cache) c.advance();
    },
    state: () => tokens.slice(0, 100),
  };
}

interface Row {
  readonly name: string;
  readonly planned: Summary;
  readonly plain: Summary;
  /** Time without plans, in times of that with them. */
  readonly ratio: Summary;
}
function compare(name: string, make: () => Work): Row {
  const as = (plans: string, work: Work) => (): void => {
    process.env["MLX_PLAN_CACHE"] = plans;
    work.step();
  };
  const [planned, plain] = [make(), make()];
  const runs = { planned: as("1", planned), plain: as("0", plain) };
  for (let i = 0; i < 20; i++) {
    runs.planned();
    runs.plain();
  }
  if (JSON.stringify(planned.state()) !== JSON.stringify(plain.state())) throw new Error(`${name}: the results differ`);
  const times = measureTogether(runs, { samples: Number(options.samples) });
  return { name, planned: summarize(times.planned), plain: summarize(times.plain), ratio: ratios(times.plain, times.planned) };
}

const { model } = await load("models/demo-shakespeare-4bit");
const rows = [
  compare("training step, width 64, batch 32", () => training(64, 32)),
  compare("training step, width 256, batch 64", () => training(256, 64)),
  compare("decode step of the demo model", () => decoding(model)),
];
if (options.json) console.log(JSON.stringify(rows));
else for (const r of rows) console.log(`${r.name}: ${duration(r.planned.median)} with plans, ${duration(r.plain.median)} without: ${digits(r.ratio.median)}x (${digits(r.ratio.p10)} to ${digits(r.ratio.p90)})`);
process.exit(0);
