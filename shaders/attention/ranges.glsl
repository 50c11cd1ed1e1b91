// How keys are cut into ranges, where partial results lie, and how a row is finished. A range takes whole passes of a workgroup; behind the last key ranges are empty.
uint rangeLength(uint count, uint ranges, uint pass) {
  const uint even = (count + ranges - 1) / ranges;
  return max((even + pass - 1) / pass, 1u) * pass;
}
// A partial result: maximum, sum, two words of nothing, and the weighted values, padded to 16 bytes.
const uint partHead = 4;
uint partStride(uint width) { return partHead + (width + 3) / 4 * 4; }

// What the weighted values are multiplied with, the sink being one more key that has no value. A row without any weight is 0; a NaN stays one.
float finalFactor(float high, float total, float sink) {
  const float top = max(high, sink);
  const float base = top == -1.0 / 0.0 ? 0.0 : top;
  const float factor = exp(high - base);
  const float sum = total * factor + exp(sink - base);
  return sum == 0.0 ? 0.0 : factor / sum;
}
