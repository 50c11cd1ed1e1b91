/** Several optimizers for different parameters. */
import type { MxArray } from "../index.ts";
import { treeFlatten, treeMerge, treeUnflatten } from "../trees.ts";
import { type ArrayTree, Optimizer } from "./optimizer.ts";

type Filter = (path: string, weight: MxArray) => boolean;

/** Gives each parameter to the first optimizer whose filter accepts its path and gradient; the last optimizer has no filter and takes the rest. */
export class MultiOptimizer extends Optimizer {
  readonly #optimizers: readonly Optimizer[];
  readonly #filters: readonly Filter[];
  constructor(optimizers: readonly Optimizer[], filters: readonly Filter[] = []) {
    super();
    if (filters.length !== optimizers.length - 1) throw new Error(`[MultiOptimizer] needs one filter fewer than optimizers, got ${filters.length} filters and ${optimizers.length} optimizers`);
    this.#optimizers = optimizers;
    this.#filters = [...filters, () => true];
  }
  #split(tree: ArrayTree): ArrayTree[] {
    if (this.#optimizers.length === 1) return [tree];
    const parts: [string, MxArray][][] = this.#optimizers.map(() => []);
    for (const [path, weight] of treeFlatten(tree)) parts[this.#filters.findIndex((f) => f(path, weight))]?.push([path, weight]);
    return parts.map((part) => treeUnflatten(part));
  }
  override init(parameters: ArrayTree): void {
    this.#split(parameters).forEach((part, i) => {
      this.#optimizers[i]?.init(part);
    });
  }
  override initSingle(): void {
    throw new Error("[MultiOptimizer] state is made by the single optimizers");
  }
  override applySingle(): MxArray {
    throw new Error("[MultiOptimizer] updates are made by the single optimizers");
  }
  override applyGradients(gradients: ArrayTree, parameters: ArrayTree): ArrayTree {
    return this.#split(gradients).reduce((tree, part, i) => treeMerge(tree, this.#optimizers[i]?.applyGradients(part, parameters)), {});
  }
  /** `{ states: [...] }`, one state per optimizer. */
  override get state(): ArrayTree {
    return { states: this.#optimizers?.map((o) => o.state) ?? [] };
  }
  override set state(state: ArrayTree) {
    if (!Array.isArray(state?.states) || state.states.length !== this.#optimizers.length) throw new Error(`[MultiOptimizer] state must be { states } with one for each of ${this.#optimizers.length} optimizers`);
    this.#optimizers.forEach((o, i) => {
      o.state = state.states[i];
    });
  }
  override get learningRate(): MxArray {
    return (this.#optimizers[0] as Optimizer).learningRate;
  }
  override set learningRate(learningRate: number | MxArray) {
    for (const o of this.#optimizers) o.learningRate = learningRate;
  }
}
