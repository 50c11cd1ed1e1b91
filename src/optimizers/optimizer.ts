/** Base class of optimizers. Follows mlx.optimizers.Optimizer. */
import { core as mx, type MxArray, nn } from "../index.ts";
import { isDict, treeMap } from "../trees.ts";

/** Value of a hyperparameter at a step (a 0-d uint64 array). */
export type Schedule = (step: MxArray) => MxArray;
export type LearningRate = number | Schedule;
// biome-ignore lint/suspicious/noExplicitAny: trees of arrays of any depth
export type ArrayTree = any;
/** What an optimizer keeps for one parameter. */
export type ParameterState = Record<string, MxArray>;

const one = (): MxArray => mx.array(1, mx.uint64);
const isArray = (x: unknown): x is MxArray => x instanceof mx.array;
const blank = (tree: ArrayTree): ArrayTree => treeMap(() => ({}), tree);

/** Gives `state` an empty place for every parameter that it has none for. */
function extend(parameters: ArrayTree, state: ArrayTree): ArrayTree {
  if (isArray(parameters)) return state;
  if (Array.isArray(parameters)) {
    parameters.forEach((p, i) => {
      state[i] = i in state ? extend(p, state[i]) : blank(p);
    });
  } else if (isDict(parameters)) {
    for (const [k, p] of Object.entries(parameters)) state[k] = Object.hasOwn(state, k) ? extend(p, state[k]) : blank(p);
  }
  return state;
}

const isPlain = (x: unknown): boolean => typeof x === "number" || typeof x === "boolean" || typeof x === "string" || (Array.isArray(x) && x.every(isPlain));
/** Hyperparameters that are no arrays: when one changes, updates are traced again. */
const membersOf = (optimizer: object): string => JSON.stringify(Object.entries(optimizer).filter(([, x]) => isPlain(x)));
/** The parameters that there are gradients for. */
const parametersOf = (gradients: ArrayTree, parameters: ArrayTree): ArrayTree => treeMap((_g: MxArray, p: MxArray) => p, gradients, [parameters]);

/**
 * Computes new parameters from gradients. Subclasses say what is kept for a parameter and how it is updated. The update of all parameters is one compiled graph: `applySingle`
 * runs once for each kind of parameters, and again when a member of the optimizer changes. In it arrays have no values.
 */
export abstract class Optimizer {
  #initialized = false;
  readonly #kept: { state: ArrayTree } = { state: { step: mx.array(0, mx.uint64) } };
  readonly #schedulers: Record<string, Schedule>;
  readonly #applyAll: (gradients: ArrayTree, parameters: ArrayTree, members: string) => ArrayTree = mx.compile(
    (gradients: ArrayTree, parameters: ArrayTree, _members: string): ArrayTree => {
      this.state.step = mx.add(this.step, one());
      return treeMap((g: MxArray, p: MxArray, s: ParameterState) => this.applySingle(g, p, s), gradients, [parameters, this.state]);
    },
    false,
    [this.#kept, this],
    this.#kept,
  );

  constructor(schedulers: Record<string, Schedule> = {}) {
    this.#schedulers = { ...schedulers };
  }

  /** Replaces the model's parameters by updated ones. `gradients` may lack some. The members of a plain object are replaced by those of the updated tree. */
  update(model: nn.Module | Record<string, ArrayTree>, gradients: ArrayTree): void {
    if (model instanceof nn.Module) model.update(this.applyGradients(gradients, model.parameters()));
    else Object.assign(model, this.applyGradients(gradients, model));
  }
  /** Makes the state of all parameters, which the first update would do. */
  init(parameters: ArrayTree): void {
    extend(parameters, this.state);
    treeMap((p: MxArray, s: ParameterState) => {
      if (Object.keys(s).length === 0) this.initSingle(p, s);
    }, parameters, [this.state]);
    this.#initialized = true;
  }
  /** Sets the state of one parameter before its first update. */
  abstract initSingle(parameter: MxArray, state: ParameterState): void;
  /** The new value of one parameter; changes its state. */
  abstract applySingle(gradient: MxArray, parameter: MxArray, state: ParameterState): MxArray;

  /** The updated parameters, in the form of the gradients; `parameters` may hold more. */
  applyGradients(gradients: ArrayTree, parameters: ArrayTree): ArrayTree {
    if (!this.#initialized) this.init(gradients);
    for (const [name, schedule] of Object.entries(this.#schedulers)) this.state[name] = schedule(this.step);
    return this.#applyAll(gradients, parametersOf(gradients, parameters), membersOf(this));
  }

  /** `step`, the hyperparameters on a schedule, and what is kept for each parameter, in the form of the parameters. */
  get state(): ArrayTree {
    return this.#kept.state;
  }
  set state(state: ArrayTree) {
    this.#initialized = false;
    this.#kept.state = state;
  }
  /** Number of updates, 0-d uint64. */
  get step(): MxArray {
    return this.state.step as MxArray;
  }
  get learningRate(): MxArray {
    return this.state.learningRate as MxArray;
  }
  set learningRate(learningRate: number | MxArray) {
    this.state.learningRate = mx.array(learningRate);
  }
  /** Puts a hyperparameter into the state: a number, or a function of the step that is called before each update. */
  protected maybeSchedule(name: string, value: LearningRate): void {
    if (typeof value === "function") this.#schedulers[name] = value;
    this.state[name] = typeof value === "function" ? value(this.step) : mx.array(value);
  }
  /** The learning rate in a parameter's dtype. */
  protected rate(like: MxArray): MxArray {
    return this.learningRate.astype(like.dtype);
  }
}
