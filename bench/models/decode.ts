/** Decode and prefill speed of our own library, through its public API. */
import { generateStep, load } from "../../src/llm/index.ts";
import { core as mx } from "../../src/index.ts";
import { type Engine, promptIds } from "../peers/engine.ts";

/** Opens a checkpoint and checks it: finite logits, and the same ones whether the prompt comes in one piece or token by token. */
export async function openModel(path: string): Promise<Engine> {
  const start = performance.now();
  const { model } = await load(path);
  const loadSeconds = (performance.now() - start) / 1000;
  const vocabulary = (model as unknown as { config: { vocab_size: number } }).config.vocab_size;
  const run = (depth: number, more: number): [number, number] => {
    const begin = performance.now();
    const steps = generateStep(promptIds(depth, vocabulary), model, { maxTokens: more + 1 });
    if (steps.next().done) throw new Error("no first token");
    const first = performance.now();
    for (let i = 0; i < more; i++) if (steps.next().done) throw new Error("generation ended early");
    const end = performance.now();
    steps.return();
    return [(first - begin) / 1000, (end - first) / 1000];
  };
  validate(path, model, vocabulary);
  return {
    loadSeconds,
    generate: (ids, count) => Promise.resolve(Array.from(generateStep(ids, model, { maxTokens: count }), ([token]) => Number(token))),
    prefill: (tokens) => Promise.resolve(run(tokens, 0)[0]),
    decode: (depth, tokens) => Promise.resolve(run(depth, tokens)[1]),
  };
}

type Model = Awaited<ReturnType<typeof load>>["model"];

/** Logits of the last position, by one call or by one call per token. */
function lastLogits(model: Model, ids: readonly number[], oneByOne: boolean): Float32Array {
  const cache = model.makeCache();
  try {
    let out: Float32Array | undefined;
    for (const piece of oneByOne ? ids.map((id) => [id]) : [[...ids]]) {
      const logits = mx.tidy(() => [model.nextLogits(mx.array([piece], mx.int32), cache).astype(mx.float32), cache] as const)[0];
      out = Float32Array.from(mx.reshape(logits, [-1]).tolist() as number[]);
      logits.dispose();
    }
    return out as Float32Array;
  } finally {
    for (const c of cache) c.dispose();
  }
}

/** Prefill and decode use different kernels: on the same ids they must agree to bfloat16 accuracy. */
function validate(path: string, model: Model, vocabulary: number): void {
  const ids = promptIds(9, vocabulary, 3);
  const whole = lastLogits(model, ids, false);
  const steps = lastLogits(model, ids, true);
  let worst = 0;
  let range = 0;
  for (let i = 0; i < whole.length; i++) {
    const [a, b] = [whole[i] as number, steps[i] as number];
    if (!Number.isFinite(a) || !Number.isFinite(b)) throw new Error(`${path}: logit ${i} is not finite, got ${a} and ${b}`);
    worst = Math.max(worst, Math.abs(a - b));
    range = Math.max(range, Math.abs(a));
  }
  // 28 layers of bfloat16 (8 bits): errors of 2^-9 per rounding add up like a random walk.
  if (worst > 0.1 * range) throw new Error(`${path}: prefill and decode differ by ${worst} in logits of range ${range}`);
}
