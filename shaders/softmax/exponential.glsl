// Numbers as the reference takes them: NaN is no maximum, and exp(-inf) is 0 with a finite origin.
bool notNumber(float x) { return (floatBitsToUint(x) & 0x7fffffffu) > 0x7f800000u; }
const float lowest = uintBitsToFloat(0xff800000u);
float number(float x) { return notNumber(x) ? lowest : x; }
float max4(vec4 v) { return max(max(number(v.x), number(v.y)), max(number(v.z), number(v.w))); }
// A row without a finite element is measured from 0.
float origin(float m) { return m == lowest ? 0.0 : m; }

// exp(x) for x <= 0 or NaN; 0 where float32 has no normal number. Whole powers of two are split off by Cody and Waite's reduction, so that the error does not grow with |x|.
float exponential(float x) {
  // Precise: rearranged, this would lose what it is for. The first product is exact, so there is no need of fma, which drivers rearrange all the same.
  const float n = roundEven(x * 1.44269504);
  precise float r = x - n * 0.693359375;
  r += n * 2.12194440e-4;
  return x < -87.0 ? 0.0 : exp2(r * 1.44269504) * uintBitsToFloat(uint(int(n) + 127) << 23);
}
vec4 exponential4(vec4 v) { return vec4(exponential(v.x), exponential(v.y), exponential(v.z), exponential(v.w)); }
// x - m. logsumexp of a row with an infinity is that infinity, unless a NaN is there too; softmax of it is NaN.
#ifdef LOGARITHM
float above(float x, float m) { return x == m ? 0.0 : x - m; }
#else
float above(float x, float m) { return x - m; }
#endif
vec4 above4(vec4 v, float m) { return vec4(above(v.x, m), above(v.y, m), above(v.z, m), above(v.w, m)); }
float sum4(vec4 v) { return (v.x + v.y) + (v.z + v.w); }
