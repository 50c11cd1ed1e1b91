/** Training: one step as a compiled function of its state, evaluation, and sampling. */
import { core as mx, nn, optimizers, utils, type MxArray } from "mlx-vk";
import { type GPT, lossOf } from "./model.ts";
import { allPieces, randomPieces, type Text } from "./text.ts";

export interface TrainingConfig {
  batch: number;
  context: number;
  learningRate: number;
  /** Steps in which the learning rate rises, and after which it has come down to a tenth along a cosine. */
  warmup: number;
  steps: number;
  seed: number;
}

/** Everything that a step changes. */
// biome-ignore lint/suspicious/noExplicitAny: trees of arrays
export type State = { parameters: any; optimizer: any };

export const makeOptimizer = (c: TrainingConfig): optimizers.AdamW =>
  new optimizers.AdamW(
    optimizers.joinSchedules(
      [optimizers.linearSchedule(c.learningRate / 100, c.learningRate, c.warmup), optimizers.cosineDecay(c.learningRate, Math.max(1, c.steps - c.warmup), c.learningRate / 10)],
      [c.warmup],
    ),
    [0.9, 0.99],
    1e-8,
    0.1,
    true,
  );

/** The state of the model and the optimizer as they are. */
export const stateOf = (model: GPT, optimizer: optimizers.Optimizer): State => ({ parameters: model.trainableParameters(), optimizer: optimizer.state });

/**
 * The training step, (state, key) -> [loss, norm of the gradient, next state]. It is one compiled graph: choosing the batch, the loss, its gradient, clipping and the update.
 * The model and the optimizer only lend their code; what they hold comes in and goes out as state.
 */
export function makeStep(model: GPT, optimizer: optimizers.Optimizer, text: Text, config: TrainingConfig) {
  const lossAndGradients = nn.valueAndGrad(model, (ids: MxArray) => lossOf(model, ids));
  return mx.compile((state: State, key: MxArray): [MxArray, MxArray, State] => {
    model.update(state.parameters);
    optimizer.state = copy(state.optimizer);
    const [loss, gradients] = lossAndGradients(randomPieces(text.training, config.batch, config.context + 1, key));
    const [clipped, norm] = optimizers.clipGradNorm(gradients, 1);
    const parameters = optimizer.applyGradients(clipped, model.trainableParameters());
    return [loss, norm, { parameters, optimizer: optimizer.state }];
  });
}
/** The optimizer writes into its state; the caller's tree stays as it is. */
const copy = (tree: State["optimizer"]): State["optimizer"] => utils.treeMap((x: unknown) => x, tree);

/** The random numbers of a step depend on the seed and the step alone, so that a resumed run goes on as if it had not stopped. */
export const keyOfStep = (seed: number, step: number): MxArray => mx.random.key((BigInt(seed) << 32n) | BigInt(step));

/** Mean loss over the validation text. Pieces go in batches, so that memory does not grow with the text. */
export function validationLoss(model: GPT, text: Text, config: TrainingConfig): number {
  return mx.tidy(() => {
    const pieces = allPieces(text.validation, config.context + 1);
    const count = pieces.shape[0] as number;
    let sum = 0;
    for (let i = 0; i < count; i += config.batch) {
      const part = pieces.index(mx.Slice(i, Math.min(i + config.batch, count)));
      sum += (lossOf(model, part).item() as number) * (part.shape[0] as number);
    }
    return sum / count;
  });
}

/** Continues `prompt` by `count` characters drawn at a temperature. The model sees the last `context` of them; a cache of keys and values is left to the LLM part of the library. */
export function sample(model: GPT, characters: readonly string[], prompt: string, count: number, context: number, temperature: number, seed: number): string {
  const ids = [...prompt].map((c) => Math.max(0, characters.indexOf(c)));
  for (let i = 0; i < count; i++) {
    const next = mx.tidy(() => {
      const seen = mx.array(Int32Array.from(ids.slice(-context))).reshape([1, -1]);
      const logits = model.forward(seen).index(0, -1);
      return mx.random.categorical(mx.divide(logits, temperature), -1, undefined, undefined, keyOfStep(seed, i)).item() as number;
    });
    ids.push(next);
  }
  return ids.map((id) => characters[id]).join("");
}
