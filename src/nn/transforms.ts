/** Transforms of functions that use a module's parameters: valueAndGrad and checkpoint. */
import { core as mx } from "../index.ts";
import type { Module, NestedDict } from "./module.ts";

// biome-ignore lint/suspicious/noExplicitAny: the user's function has any arguments and results
type AnyFunction = (...args: any[]) => any;

/** Runs `f` with other parameters in the module, and puts the module's own back. */
function withParameters(model: Module, parameters: NestedDict, f: () => unknown): unknown {
  const own = model.trainableParameters();
  model.update(parameters);
  try {
    return f();
  } finally {
    model.update(own, false);
  }
}

/**
 * Function that gives the value of `func` and its gradient with respect to the trainable parameters of `model`. While `func` runs the model holds traced arrays;
 * afterwards it holds its own again, so nothing is disposed and `noAutoDispose` changes nothing.
 *
 * @param func returns a scalar array, or an Array that starts with one
 * @returns function that gives [value, gradients in the form of `model.trainableParameters()`]
 */
export function valueAndGrad(model: Module, func: AnyFunction, _options?: { noAutoDispose?: boolean }): (...args: unknown[]) => [ReturnType<AnyFunction>, NestedDict] {
  const both = mx.valueAndGrad((parameters: NestedDict, ...args: unknown[]) => withParameters(model, parameters, () => func(...args)));
  return (...args) => both(model.trainableParameters(), ...args);
}

/**
 * Function like `func` (by default the module's `forward`) that keeps only its arguments and the module's parameters for the gradient, and computes the rest again
 * when it is differentiated. Gradients flow to the arguments and to the trainable parameters.
 */
export function checkpoint(module: Module, func?: AnyFunction): AnyFunction {
  const run = func ?? ((...args: unknown[]) => module.forward(...args));
  const again = mx.checkpoint((parameters: NestedDict, ...args: unknown[]) => withParameters(module, parameters, () => run(...args)));
  return (...args) => again(module.trainableParameters(), ...args);
}
