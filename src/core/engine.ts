/** What the WebAssembly engine and the processor offer to CPU kernels. The CPU backend fills it in when it is made; gates of kernels read it. */
export const engine = {
  /** Kernels are the relaxed SIMD builds. */
  relaxed: false,
  /** The int8 dot product with sums in 32 bits is one instruction. */
  int8Dot: false,
  /** V8 joins pairs of 128-bit instructions to 256-bit ones. */
  pairing: false,
};
