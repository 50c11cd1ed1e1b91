/** Base class of layers and models. Follows mlx.nn.Module; names of parameters in files are snake_case, members are camelCase. */
import { core as mx, type Dtype, type MxArray } from "../index.ts";
import { deepEqual, isDict, moduleBrand, toCamelCase, toSnakeCase, treeFlatten, treeUnflatten } from "../trees.ts";

// biome-ignore lint/suspicious/noExplicitAny: parameter trees are nested containers of any depth
export type NestedDict = Record<string, any>;
/** Decides about the member `key` of `module`, whose value is `value`. */
export type ModuleFilter = (module: Module, key: string, value: unknown) => boolean;

const isArray = (value: unknown): value is MxArray => value instanceof mx.array;
const isContainer = (value: unknown): boolean => Array.isArray(value) || isDict(value);
const defaultLeaf: ModuleFilter = (_module, _key, value) => !isContainer(value);
const identity = (value: unknown): unknown => value;

/**
 * A part of a neural network: its own properties are its state. Arrays among them (also inside Arrays, plain objects and other modules)
 * are its parameters, except those whose name starts with `_`. Call a module through `forward`.
 */
export abstract class Module {
  #training = true;
  #frozen = new Set<string>();

  get [moduleBrand](): true {
    return true;
  }

  // biome-ignore lint/suspicious/noExplicitAny: every module has its own arguments
  abstract forward(...inputs: any[]): unknown;

  static isModule(value: unknown): value is Module {
    return value instanceof Module;
  }
  static validChildFilter(_module: Module, _key: string, value: unknown): boolean {
    return isContainer(value);
  }
  static validParameterFilter(_module: Module, key: string, value: unknown): boolean {
    return !key.startsWith("_") && (isArray(value) || isContainer(value));
  }
  static trainableParameterFilter(module: Module, key: string, value: unknown): boolean {
    return Module.validParameterFilter(module, key, value) && !module.#frozen.has(key);
  }

  /** True in training mode, which only Dropout and its like ask for. */
  get training(): boolean {
    return this.#training;
  }
  get state(): this {
    return this;
  }
  /** Name -> value of everything this module holds. */
  items(): [string, unknown][] {
    return Object.entries(this).filter(([key, value]) => typeof value !== "function" && !(key in Module.prototype));
  }

  /** What stands in the brackets of `toString()`. */
  protected extraRepr(): string {
    return "";
  }
  toString(): string {
    const lines = treeFlatten(this.children(), "", Module.isModule)
      .filter(([, child]) => Module.isModule(child))
      .map(([path, child]) => `  (${path}): ${String(child).replaceAll("\n", "\n  ")}\n`);
    return `${this.constructor.name}(${this.extraRepr()}${lines.length > 0 ? "\n" : ""}${lines.join("")})`;
  }
  [Symbol.for("nodejs.util.inspect.custom")](): string {
    return this.toString();
  }

  /**
   * Loads weights from a `.safetensors` or `.npz` file or a list of `[name, array]` pairs. Strict: names the module does not have, missing names,
   * other shapes and values that are no arrays are errors.
   */
  loadWeights(fileOrWeights: string | readonly (readonly [string, unknown])[], strict = true): this {
    const pairs = typeof fileOrWeights === "string" ? Object.entries(mx.load(fileOrWeights) as Record<string, unknown>) : fileOrWeights;
    const weights = new Map<string, unknown>(pairs.map(([name, value]) => [toCamelCase(name), value]));
    if (strict) this.#checkWeights(weights);
    return this.update(treeUnflatten([...weights]), false);
  }
  #checkWeights(weights: ReadonlyMap<string, unknown>): void {
    const own = new Map<string, MxArray>(treeFlatten(this.parameters()));
    const extra = [...weights.keys()].filter((name) => !own.has(name));
    if (extra.length > 0) throw new Error(`[Module.loadWeights] the module has no ${listNames(extra)}`);
    const missing = [...own.keys()].filter((name) => !weights.has(name));
    if (missing.length > 0) throw new Error(`[Module.loadWeights] the weights lack ${listNames(missing)}`);
    for (const [name, parameter] of own) {
      const value = weights.get(name);
      if (!isArray(value)) throw new Error(`[Module.loadWeights] ${toSnakeCase(name)} must be an array, got ${typeof value}`);
      if (!deepEqual(value.shape, parameter.shape)) {
        throw new Error(`[Module.loadWeights] ${toSnakeCase(name)} must have shape (${parameter.shape}), got (${value.shape})`);
      }
    }
  }
  /** Writes all parameters to a `.safetensors` or `.npz` file. Throws for another extension. */
  saveWeights(filepath: string): void {
    const save = filepath.endsWith(".safetensors") ? mx.saveSafetensors : filepath.endsWith(".npz") ? mx.savez : undefined;
    if (!save) throw new Error(`[Module.saveWeights] the file name must end with .safetensors or .npz, got ${filepath}`);
    save(filepath, Object.fromEntries(treeFlatten(this.parameters(), "", undefined, toSnakeCase)));
  }

  /**
   * Walks over everything the module holds. Members that `filterFn` refuses are left out; leaves (by default everything that is no
   * container) pass through `mapFn`.
   */
  filterAndMap(filterFn: ModuleFilter, mapFn: (value: MxArray & Module) => unknown = identity, isLeafFn: ModuleFilter = defaultLeaf): NestedDict {
    const unwrap = (module: Module, key: string, value: unknown): unknown => {
      if (isLeafFn(module, key, value)) return mapFn(value as MxArray & Module);
      if (Module.isModule(value)) return collect(value);
      const nested = (name: string | number, child: unknown): unknown => (filterFn(module, `${key}.${name}`, child) ? unwrap(module, `${key}.${name}`, child) : {});
      if (Array.isArray(value)) return value.map((child, i) => nested(i, child));
      if (isDict(value)) return Object.fromEntries(Object.entries(value).map(([k, child]) => [k, nested(k, child)]));
      throw new Error(`[Module.filterAndMap] ${key} is neither a container nor a leaf`);
    };
    const collect = (module: Module): NestedDict =>
      Object.fromEntries(
        module
          .items()
          .filter(([k, v]) => filterFn(module, k, v))
          .map(([k, v]) => [k, unwrap(module, k, v)]),
      );
    return collect(this);
  }
  parameters(): NestedDict {
    return this.filterAndMap(Module.validParameterFilter);
  }
  /** Parameters that are not frozen. */
  trainableParameters(): NestedDict {
    return this.filterAndMap(Module.trainableParameterFilter);
  }
  /** Direct submodules. */
  children(): NestedDict {
    return this.filterAndMap(Module.validChildFilter, identity, (_m, _k, v) => Module.isModule(v));
  }
  /** Submodules that have no submodules. */
  leafModules(): NestedDict {
    const isLeaf: ModuleFilter = (_m, _k, v) => Module.isModule(v) && submodules(v).length === 0;
    return this.filterAndMap(Module.validChildFilter, identity, isLeaf);
  }

  /** Replaces parameters by those in a tree, which may hold only some. Strict: names that the module does not have and values that are no arrays are errors; otherwise ignored. */
  update(parameters: NestedDict, strict = true): this {
    replace("update", this, parameters, strict, takeParameter);
    return this;
  }
  /** Replaces submodules by those in a tree, which may hold only some; `strict` as in `update`. */
  updateModules(modules: NestedDict, strict = true): this {
    replace("updateModules", this, modules, strict, takeModule);
    return this;
  }
  /** Maps every parameter that `filterFn` accepts. */
  apply(mapFn: (parameter: MxArray) => MxArray, filterFn: ModuleFilter = Module.validParameterFilter): this {
    return this.update(this.filterAndMap(filterFn, mapFn));
  }
  /** Calls `applyFn(path, module)` for this module and everything below it. */
  applyToModules(applyFn: (prefix: string, module: Module) => unknown): this {
    for (const [path, module] of this.namedModules()) applyFn(path, module);
    return this;
  }
  /** This module and everything below it. */
  modules(): Module[] {
    return this.namedModules().map(([, module]) => module);
  }
  namedModules(): [string, Module][] {
    const found: [string, Module][] = [];
    const stack: [string, Module][] = [["", this]];
    for (let next = stack.pop(); next; next = stack.pop()) {
      found.push(next);
      const [path, module] = next;
      for (const [name, child] of submodules(module).reverse()) stack.push([path === "" ? name : `${path}.${name}`, child]);
    }
    return found;
  }

  /** Marks parameters (all, or those named in `keys`) as not trainable. Strict: a key that no module has is an error. */
  freeze(recurse = true, keys?: string | readonly string[] | null, strict = false): this {
    const names = this.#checkedKeys(recurse, keys, strict);
    for (const module of recurse ? this.modules() : [this]) for (const key of names ?? module.#ownParameterKeys()) module.#frozen.add(key);
    return this;
  }
  /** Takes back `freeze`. */
  unfreeze(recurse = true, keys?: string | readonly string[] | null, strict = false): this {
    const names = this.#checkedKeys(recurse, keys, strict);
    for (const module of recurse ? this.modules() : [this]) {
      if (names) for (const key of names) module.#frozen.delete(key);
      else module.#frozen.clear();
      module.refreeze(names !== undefined);
    }
    return this;
  }
  /** Called after `unfreeze` (of certain keys, or of all): modules with parameters that are not to be trained freeze them again here. */
  protected refreeze(_ofKeys: boolean): void {}
  /** Paths of the arrays that this module holds itself, not in a submodule. */
  #ownParameterKeys(): string[] {
    const own = this.filterAndMap((m, k, v) => !Module.isModule(v) && Module.validParameterFilter(m, k, v));
    return treeFlatten(own)
      .filter(([, value]) => isArray(value))
      .map(([path]) => path);
  }
  #checkedKeys(recurse: boolean, keys: string | readonly string[] | null | undefined, strict: boolean): readonly string[] | undefined {
    if (keys === undefined || keys === null) return undefined;
    const list = typeof keys === "string" ? [keys] : keys;
    const holders = strict ? (recurse ? this.modules() : [this]) : [];
    const unknown = strict ? list.find((key) => !holders.some((module) => key in module)) : undefined;
    if (unknown !== undefined) throw new Error(`[Module] the module has no member ${unknown}`);
    return list;
  }

  /** Sets training mode in this module and everything below it. */
  train(mode = true): this {
    for (const module of this.modules()) {
      module.#training = mode;
      module.modeChanged();
    }
    return this;
  }
  /** Called after `train` and `eval`. */
  protected modeChanged(): void {}
  eval(): this {
    return this.train(false);
  }
  /** Casts parameters whose dtype passes the predicate (by default: floating types; `null`: all). */
  setDtype(dtype: Dtype, predicate: ((d: Dtype) => boolean) | null = (d) => mx.issubdtype(d, mx.floating)): void {
    this.apply((p) => (predicate === null || predicate(p.dtype) ? p.astype(dtype) : p));
  }
}

/** A number for `toString()`: small ones as 1e-5. */
export const showNumber = (x: number): string => (x !== 0 && Math.abs(x) < 1e-3 ? x.toExponential() : `${x}`);

const submodules = (module: Module): [string, Module][] => treeFlatten(module.children(), "", Module.isModule).filter(([, child]) => Module.isModule(child));

function listNames(names: readonly string[]): string {
  const shown = names.slice(0, 8).map(toSnakeCase).join(", ");
  return `${names.length} parameter${names.length > 1 ? "s" : ""}: ${shown}${names.length > 8 ? ", ..." : ""}`;
}

/** What to do with a value for a place: put it there, go into both, or nothing, which is an error in strict mode. */
type Take = (current: unknown, value: unknown) => "put" | "descend" | "ignore" | "refuse";
const takeParameter: Take = (current, value) => {
  if (isArray(current)) return isArray(value) ? "put" : "refuse";
  return isContainer(value) ? "descend" : "refuse";
};
const takeModule: Take = (current, value) => {
  if (Module.isModule(current) && Module.isModule(value)) return "put";
  if (isContainer(current)) return isContainer(value) ? "descend" : "refuse";
  return isDict(value) && Object.keys(value).length === 0 ? "ignore" : "refuse";
};
/** Puts the values of a tree in places of `target`. */
function replace(op: string, target: unknown, values: unknown, strict: boolean, take: Take): void {
  const holder = (isContainer(target) ? target : {}) as Record<string, unknown>;
  for (const [key, value] of Object.entries(values as object)) {
    if (!Object.hasOwn(holder, key)) {
      if (strict) throw new Error(`[Module.${op}] the module has no ${toSnakeCase(key)}`);
      continue;
    }
    const action = take(holder[key], value);
    if (action === "put") holder[key] = value;
    else if (action === "descend") replace(op, holder[key], value, strict, take);
    else if (action === "refuse" && strict) throw new Error(`[Module.${op}] ${toSnakeCase(key)} can not be replaced, got ${typeof value}`);
  }
}

/** Replaces modules by quantized ones. See `nn.quantize`. */
export function mapLeafModules(model: Module, f: (path: string, module: Module) => Module): void {
  const leaves = treeFlatten(model.leafModules(), "", Module.isModule).filter(([, m]) => Module.isModule(m));
  model.updateModules(treeUnflatten(leaves.map(([path, m]) => [path, f(toSnakeCase(path), m)])));
}
