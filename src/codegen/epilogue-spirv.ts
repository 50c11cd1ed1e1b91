/**
 * Puts an expression into a checked-in product kernel: the function `epilogue` of shaders/common/epilogue.glsl, found by its type, gets a new body. The kernel reads the
 * further operands and stores the result; the function only computes, in float32. Same lowering and same instructions as generated elementwise kernels, so same results.
 */
import { float32 } from "../core/dtype.ts";
import { type Value, reachable } from "../core/expr.ts";
import { type GeneratedShader, mostEpilogueOperands } from "../core/gpu.ts";
import { type SpirvDevice, featureKey, lacks, roundsDivision } from "./elementwise-spirv.ts";
import { weigh } from "./kernel.ts";
import { emitScalar } from "./lanes-spirv.ts";
import { lower } from "./lower.ts";
import { type Id, SpirvModule, spv } from "./spirv.ts";

/** Most instructions: kernels hold the function up to 8 times, and 8 elements are finished one after another. */
const mostWeight = 400;

/** A function of the product's element, input 0, and the further operands, inputs 1 to 6; all are float32 here, as the result. */
export interface Epilogue {
  /** Equal for equal code. */
  readonly key: string;
  readonly value: Value;
}

const lowered = new Map<number, Value>();
function loweredValue(v: Value): Value {
  let known = lowered.get(v.id);
  if (!known) {
    if (lowered.size >= 1024) lowered.clear();
    known = (lower([{ dtype: float32, value: v }], { division32: true, subnormals: false })[0] as { value: Value }).value;
    lowered.set(v.id, known);
  }
  return known;
}

/** The function that computes this value for the device, or the reason why there is none ("cannot: ..." or "slower: ..."). */
export function epilogueOf(value: Value, device: SpirvDevice): Epilogue | string {
  const own = loweredValue(value);
  const refusal = lacks([own], [], device.features);
  if (refusal !== undefined) return refusal;
  if (weigh([{ bytes: 4, value: own }]) > mostWeight) return "slower: a long formula, once for every element";
  return { key: `${value.id}.${roundsDivision(device.vendorId) ? "r" : ""}.${featureKey(device.features)}`, value: own };
}

const shaders = new Map<string, GeneratedShader>();
/** The build of a kernel (with EPILOGUE among its definitions) that ends with the function. */
export function withEpilogue(build: string, { key, value }: Epilogue, device: SpirvDevice): GeneratedShader {
  const name = `epilogue/${build}/${key}`;
  let known = shaders.get(name);
  if (!known) {
    if (shaders.size >= 1024) shaders.clear();
    let code: Uint32Array | undefined;
    known = {
      key: name,
      base: build,
      code: (base) => {
        code ??= new EpilogueModule(base as Uint32Array).insert(value, device);
        return code;
      },
    };
    shaders.set(name, known);
  }
  return known;
}

const executionModeId = 331;
interface Instruction {
  readonly op: number;
  readonly at: number;
  readonly words: Uint32Array;
}

/** A module that is there already, into which instructions are put; its types and constants are used again. */
class EpilogueModule extends SpirvModule {
  private readonly base: Uint32Array;
  private readonly instructions: Instruction[] = [];

  constructor(base: Uint32Array) {
    super();
    this.base = base;
    this.bound = base[3] as number;
    this.capabilities.clear();
    for (let at = 5; at < base.length; ) {
      const [op, length] = [(base[at] as number) & 0xffff, (base[at] as number) >>> 16];
      this.instructions.push({ op, at, words: base.subarray(at + 1, at + length) });
      at += length;
    }
    for (const { op, words } of this.instructions) this.remember(op, words);
  }
  private remember(op: number, words: Uint32Array): void {
    const [first, second, ...rest] = words as unknown as [number, number, ...number[]];
    if (op === spv.extInstImport) this.glslSet = first;
    else if (op === spv.entryPoint) this.main = second;
    else if (op === spv.typeBool || op === spv.typeInt || op === spv.typeFloat) this.known.set(`${op},${[second, ...rest].filter((x) => x !== undefined).join()}`, first);
    else if (op === spv.constant) this.known.set(`${op},${[first, ...rest].join()}`, second);
    else if (op === spv.constantTrue || op === spv.constantFalse) this.known.set(`${op},${first}`, second);
  }
  /** The function with 7 numbers: where its parameters and its body begin, and where it ends. */
  private place(): { parameters: Id[]; control: number; from: number; to: number } {
    const all = this.instructions;
    const type = all.find((i) => i.op === spv.typeFunction && i.words.length === 2 + 1 + mostEpilogueOperands)?.words[0];
    const begin = all.findIndex((i) => i.op === spv.function && i.words[3] === type);
    if (type === undefined || begin < 0) throw new Error("the kernel has no epilogue");
    const end = all.findIndex((i, k) => k > begin && i.op === spv.functionEnd);
    const parameters = all.slice(begin, end).filter((i) => i.op === spv.functionParameter);
    return { parameters: parameters.map((i) => i.words[1] as Id), control: (all[begin] as Instruction).at + 3, from: (all[begin + 1 + parameters.length] as Instruction).at, to: (all[end] as Instruction).at };
  }

  insert(value: Value, device: SpirvDevice): Uint32Array {
    const { instructions } = this;
    const { parameters, control, from, to } = this.place();
    const base = this.base.slice();
    // The driver may put it in place (shaders/build.ts must not).
    base[control] = 0;
    this.roundsDivision = roundsDivision(device.vendorId);
    if (device.features.signedZeroInfNanPreserveFloat32) this.preserve(32);
    const ids = new Map<Value, Id>();
    this.label();
    for (const v of reachable([value])) ids.set(v, v.op === "input" ? (parameters[Number(v.imm)] as Id) : emitScalar(this, v, v.args.map((a) => ids.get(a) as Id)));
    this.emit(spv.returnValue, ids.get(value) as Id);
    // The format wants each kind of instruction in its section: capabilities first, modes after the entry point's, decorations before types, and types before functions.
    const first = (is: (op: number) => boolean): number => (instructions.find((i) => is(i.op)) as Instruction).at;
    const modes = first((op) => op === spv.executionMode || op === executionModeId);
    const types = first((op) => op >= spv.typeVoid && op <= spv.typeFunction);
    const functions = first((op) => op === spv.function);
    const head: number[] = [];
    for (const c of this.capabilities) SpirvModule.add(head, spv.capability, [c]);
    const parts = [
      base.subarray(0, 5), head, base.subarray(5, modes), this.modes, base.subarray(modes, types), this.decorations, base.subarray(types, functions), this.declarations,
      base.subarray(functions, from), this.body, base.subarray(to),
    ];
    const made = Uint32Array.from(parts.flatMap((p) => [...p]));
    made[3] = this.bound;
    return made;
  }
}
