// The vector of a product with quantized rows, kept in shared memory as 8-bit planes: in blocks of 32 elements, x = scale * (128 * h + l) with h and l in
// -127..127 (three planes for float32). The error is 2^-15 (2^-21) of the block's largest element, below the rounding of the element type. Four products then
// take one instruction, where unpacking a weight to a float and multiplying takes three or four per weight.
#extension GL_EXT_integer_dot_product : require
#extension GL_KHR_shader_subgroup_shuffle : require

#if T == T_F32
#define PLANES 3
const float largest = 127.0 * 16384.0;
#else
#define PLANES 2
const float largest = 127.0 * 128.0;
#endif
const uint blocks = width / 32;
// Half h of plane p of block b lies at (2 * p + h) * blocks + b: neighbours read neighbours.
shared uvec4 planes[2 * PLANES * blocks];
// Scale and sum of each block.
shared vec2 blockTerms[blocks];

uint bytesOf(int a, int b, int c, int d) { return (a & 255) | ((b & 255) << 8) | ((c & 255) << 16) | ((d & 255) << 24); }

// Elements 8 c to 8 c + 7. Four neighbouring invocations fill a block together.
void keep(uint c, float x[8]) {
  float top = 0;
  float sum = 0;
  [[unroll]] for (uint i = 0; i < 8; i++) {
    top = max(top, abs(x[i]));
    sum += x[i];
  }
  [[unroll]] for (uint i = 1; i < 4; i *= 2) {
    top = max(top, subgroupShuffleXor(top, i));
    sum += subgroupShuffleXor(sum, i);
  }
  // A block that is not finite makes every result NaN.
  if (!(abs(sum) <= 3.4028235e38)) sum = uintBitsToFloat(0x7fc00000u);
  const float inverse = top > 1e-30 ? largest / top : 0.0;
  const uint b = c / 4;
  if ((c & 3) == 0) blockTerms[b] = vec2(top / largest, sum);
  int q[8];
  [[unroll]] for (uint i = 0; i < 8; i++) q[i] = int(roundEven(x[i] * inverse));
  [[unroll]] for (uint p = 0; p < PLANES; p++) {
    const int shift = 7 * (PLANES - 1 - int(p));
    int part[8];
    [[unroll]] for (uint i = 0; i < 8; i++) {
      part[i] = shift == 0 ? q[i] : (q[i] + (1 << max(shift - 1, 0))) >> shift;
      q[i] -= part[i] << shift;
    }
    // 4-bit weights come apart into even and odd elements.
    const uvec2 words = bits == 4 ? uvec2(bytesOf(part[0], part[2], part[4], part[6]), bytesOf(part[1], part[3], part[5], part[7]))
                                  : uvec2(bytesOf(part[0], part[1], part[2], part[3]), bytesOf(part[4], part[5], part[6], part[7]));
    const uint at = (2 * p + ((c & 3) >> 1)) * blocks + b;
    if ((c & 1) == 0) planes[at].xy = words;
    else planes[at].zw = words;
  }
}
