/** Assembler for SPIR-V modules with one compute entry point, `main`. Types and constants are deduplicated. */

/** Opcodes, https://registry.khronos.org/SPIR-V/specs/unified1/SPIRV.html#Instructions */
export const spv = {
  extension: 10,
  extInstImport: 11,
  extInst: 12,
  memoryModel: 14,
  entryPoint: 15,
  executionMode: 16,
  capability: 17,
  typeVoid: 19,
  typeBool: 20,
  typeInt: 21,
  typeFloat: 22,
  typeVector: 23,
  typeArray: 28,
  typeRuntimeArray: 29,
  typeStruct: 30,
  typePointer: 32,
  typeFunction: 33,
  constantTrue: 41,
  constantFalse: 42,
  constant: 43,
  function: 54,
  functionParameter: 55,
  functionEnd: 56,
  variable: 59,
  load: 61,
  store: 62,
  accessChain: 65,
  decorate: 71,
  memberDecorate: 72,
  compositeConstruct: 80,
  compositeExtract: 81,
  convertFToU: 109,
  convertFToS: 110,
  convertSToF: 111,
  convertUToF: 112,
  uConvert: 113,
  sConvert: 114,
  fConvert: 115,
  convertUToPtr: 120,
  bitcast: 124,
  sNegate: 126,
  fNegate: 127,
  iAdd: 128,
  fAdd: 129,
  iSub: 130,
  fSub: 131,
  iMul: 132,
  fMul: 133,
  uDiv: 134,
  sDiv: 135,
  fDiv: 136,
  iAddCarry: 149,
  uMulExtended: 151,
  logicalEqual: 164,
  logicalNotEqual: 165,
  logicalOr: 166,
  logicalAnd: 167,
  logicalNot: 168,
  select: 169,
  iEqual: 170,
  iNotEqual: 171,
  uGreaterThan: 172,
  sGreaterThan: 173,
  uGreaterThanEqual: 174,
  sGreaterThanEqual: 175,
  uLessThan: 176,
  sLessThan: 177,
  uLessThanEqual: 178,
  sLessThanEqual: 179,
  fOrdEqual: 180,
  fUnordNotEqual: 183,
  fOrdLessThan: 184,
  fOrdGreaterThan: 186,
  fOrdLessThanEqual: 188,
  fOrdGreaterThanEqual: 190,
  shiftRightLogical: 194,
  shiftRightArithmetic: 195,
  shiftLeft: 196,
  bitwiseOr: 197,
  bitwiseXor: 198,
  bitwiseAnd: 199,
  bitwiseNot: 200,
  bitFieldInsert: 201,
  bitFieldSExtract: 202,
  bitFieldUExtract: 203,
  controlBarrier: 224,
  loopMerge: 246,
  selectionMerge: 247,
  label: 248,
  branch: 249,
  branchConditional: 250,
  return: 253,
  returnValue: 254,
  groupNonUniformIAdd: 349,
  groupNonUniformFAdd: 350,
  groupNonUniformIMul: 351,
  groupNonUniformFMul: 352,
  groupNonUniformUMin: 354,
  groupNonUniformUMax: 357,
} as const;

/** Instructions of the set GLSL.std.450. */
export const glsl = { roundEven: 2, trunc: 3, fAbs: 4, floor: 8, ceil: 9, sqrt: 31, uMin: 38, sMin: 39, uMax: 41, sMax: 42, fma: 50 } as const;

export const storageClass = { input: 1, workgroup: 4, function: 7, pushConstant: 9, physicalStorageBuffer: 5349 } as const;
export const decoration = { block: 2, arrayStride: 6, builtIn: 11, restrict: 19, offset: 35, noContraction: 42 } as const;
export const builtIn = { numWorkgroups: 24, workgroupId: 26, localInvocationIndex: 29, subgroupSize: 36, numSubgroups: 38, subgroupId: 40, subgroupLocalInvocationId: 41 } as const;
export const capability = {
  shader: 1,
  float64: 10,
  int64: 11,
  int16: 22,
  int8: 39,
  groupNonUniform: 61,
  groupNonUniformArithmetic: 63,
  storageBuffer16BitAccess: 4433,
  storageBuffer8BitAccess: 4448,
  signedZeroInfNanPreserve: 4466,
  physicalStorageBufferAddresses: 5347,
} as const;

/** Number of an instruction's result. */
export type Id = number;

/** Text as words, ending in at least one zero byte. */
function literal(text: string): number[] {
  const words = new Array<number>((text.length >> 2) + 1).fill(0);
  for (let i = 0; i < text.length; i++) words[i >> 2] = ((words[i >> 2] as number) | (text.charCodeAt(i) << (8 * (i & 3)))) >>> 0;
  return words;
}
const numbers = new DataView(new ArrayBuffer(8));
/** Words of a constant, low word first. */
export function constantWords(type: "f32" | "f64" | "i32" | "i64", value: number | bigint): number[] {
  switch (type) {
    case "f32":
      numbers.setFloat32(0, Number(value), true);
      return [numbers.getUint32(0, true)];
    case "i32":
      return [Number(value) >>> 0];
    case "f64":
      numbers.setFloat64(0, Number(value), true);
      break;
    default:
      numbers.setBigUint64(0, BigInt.asUintN(64, BigInt(value)), true);
  }
  return [numbers.getUint32(0, true), numbers.getUint32(4, true)];
}

/** A module under construction: instructions go to the section that the format wants them in. */
export class SpirvModule {
  /** The device rounds float32 division correctly. */
  roundsDivision = false;
  protected bound = 1;
  protected readonly capabilities = new Set<number>([capability.shader, capability.physicalStorageBufferAddresses]);
  protected readonly modes: number[] = [];
  protected readonly decorations: number[] = [];
  protected readonly declarations: number[] = [];
  private readonly locals: number[] = [];
  protected readonly body: number[] = [];
  private readonly interface: Id[] = [];
  protected readonly known = new Map<string, Id>();
  protected glslSet: Id = this.id();
  protected main: Id = this.id();

  id(): Id {
    return this.bound++;
  }
  protected static add(section: number[], op: number, words: readonly number[]): void {
    section.push((((words.length + 1) << 16) | op) >>> 0, ...words);
  }
  need(c: number): this {
    this.capabilities.add(c);
    return this;
  }

  /** A type or constant; equal ones are one. `typed`: the first word is the result's type. */
  private unique(op: number, words: readonly number[], typed = false): Id {
    const key = `${op},${words.join()}`;
    const old = this.known.get(key);
    if (old !== undefined) return old;
    const id = this.id();
    SpirvModule.add(this.declarations, op, typed ? [words[0] as number, id, ...words.slice(1)] : [id, ...words]);
    this.known.set(key, id);
    return id;
  }
  void(): Id {
    return this.unique(spv.typeVoid, []);
  }
  bool(): Id {
    return this.unique(spv.typeBool, []);
  }
  /** Unsigned: instructions, not types, tell signed from unsigned. 8 and 16 bits are only loaded, stored and converted here, but pointers made from addresses need the full types. */
  int(bits: 8 | 16 | 32 | 64): Id {
    if (bits === 64) this.need(capability.int64);
    if (bits === 16) this.need(capability.storageBuffer16BitAccess).need(capability.int16);
    if (bits === 8) this.need(capability.storageBuffer8BitAccess).need(capability.int8);
    return this.unique(spv.typeInt, [bits, 0]);
  }
  float(bits: 32 | 64): Id {
    if (bits === 64) this.need(capability.float64);
    return this.unique(spv.typeFloat, [bits]);
  }
  vector(type: Id, n: number): Id {
    return this.unique(spv.typeVector, [type, n]);
  }
  /** A structure that is only computed with. */
  struct(members: readonly Id[]): Id {
    return this.unique(spv.typeStruct, members);
  }
  pointer(storage: number, type: Id): Id {
    return this.unique(spv.typePointer, [storage, type]);
  }
  /** A block with members at these offsets. Never shared. */
  block(members: readonly Id[], offsets: readonly number[]): Id {
    const id = this.id();
    SpirvModule.add(this.declarations, spv.typeStruct, [id, ...members]);
    this.decorate(id, decoration.block);
    offsets.forEach((offset, i) => {
      SpirvModule.add(this.decorations, spv.memberDecorate, [id, i, decoration.offset, offset]);
    });
    return id;
  }
  /** Pointer to an array of unknown length in device memory. */
  arrayPointer(element: Id, bytes: number): Id {
    const key = `array,${element}`;
    const old = this.known.get(key);
    if (old !== undefined) return old;
    const array = this.unique(spv.typeRuntimeArray, [element]);
    this.decorate(array, decoration.arrayStride, bytes);
    const pointer = this.pointer(storageClass.physicalStorageBuffer, this.block([array], [0]));
    this.known.set(key, pointer);
    return pointer;
  }
  decorate(id: Id, ...words: number[]): void {
    SpirvModule.add(this.decorations, spv.decorate, [id, ...words]);
  }
  constant(type: Id, words: readonly number[]): Id {
    return this.unique(spv.constant, [type, ...words], true);
  }
  u32(value: number): Id {
    return this.constant(this.int(32), [value >>> 0]);
  }
  boolean(value: boolean): Id {
    return this.unique(value ? spv.constantTrue : spv.constantFalse, [this.bool()], true);
  }
  /** A variable outside functions. */
  variable(storage: number, type: Id): Id {
    const pointer = this.pointer(storage, type);
    const id = this.id();
    SpirvModule.add(this.declarations, spv.variable, [pointer, id, storage]);
    this.interface.push(id);
    return id;
  }
  /** An array of known length that a workgroup shares. */
  shared(element: Id, length: number): Id {
    return this.variable(storageClass.workgroup, this.unique(spv.typeArray, [element, this.u32(length)]));
  }
  /** A variable of `main`. */
  local(type: Id): Id {
    const pointer = this.pointer(storageClass.function, type);
    const id = this.id();
    SpirvModule.add(this.locals, spv.variable, [pointer, id, storageClass.function]);
    return id;
  }
  /** NaN, infinities and the sign of zero count in arithmetic of this width. */
  preserve(bits: 32 | 64): void {
    this.need(capability.signedZeroInfNanPreserve);
    SpirvModule.add(this.modes, spv.executionMode, [this.main, 4461, bits]);
  }

  /** An instruction with a result. */
  op(op: number, type: Id, ...words: number[]): Id {
    const id = this.id();
    SpirvModule.add(this.body, op, [type, id, ...words]);
    return id;
  }
  glsl(instruction: number, type: Id, ...words: Id[]): Id {
    return this.op(spv.extInst, type, this.glslSet, instruction, ...words);
  }
  /** An instruction without a result. */
  emit(op: number, ...words: number[]): void {
    SpirvModule.add(this.body, op, words);
  }
  label(id: Id = this.id()): Id {
    this.emit(spv.label, id);
    return id;
  }

  /** The module; `fill` writes the body of `main`, which has been begun and will be ended. SPIR-V 1.5: what Vulkan 1.2 takes. */
  finish(localSize: readonly [number, number, number], fill: () => void): Uint32Array {
    const type = this.unique(spv.typeFunction, [this.void()]);
    const start: number[] = [];
    SpirvModule.add(start, spv.function, [this.void(), this.main, 0, type]);
    SpirvModule.add(start, spv.label, [this.id()]);
    fill();
    this.emit(spv.return);
    this.emit(spv.functionEnd);
    const head: number[] = [];
    for (const c of this.capabilities) SpirvModule.add(head, spv.capability, [c]);
    SpirvModule.add(head, spv.extInstImport, [this.glslSet, ...literal("GLSL.std.450")]);
    SpirvModule.add(head, spv.memoryModel, [5348, 1]);
    SpirvModule.add(head, spv.entryPoint, [5, this.main, ...literal("main"), ...this.interface]);
    SpirvModule.add(head, spv.executionMode, [this.main, 17, ...localSize]);
    return Uint32Array.from([0x07230203, 0x00010500, 0, this.bound, 0, ...head, ...this.modes, ...this.decorations, ...this.declarations, ...start, ...this.locals, ...this.body]);
  }
}
