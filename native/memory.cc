// Buffers: device, upload and readback memory, imported host memory, mapping and copying.
#include <cstring>

#include "context.h"

namespace {

constexpr vk::Flags deviceLocal = vk::MEMORY_PROPERTY_DEVICE_LOCAL_BIT;
constexpr vk::Flags hostVisible = vk::MEMORY_PROPERTY_HOST_VISIBLE_BIT | vk::MEMORY_PROPERTY_HOST_COHERENT_BIT;
constexpr vk::Flags hostCached = vk::MEMORY_PROPERTY_HOST_CACHED_BIT;
constexpr uint32_t kindDevice = 0, kindUpload = 1, kindReadback = 2, kindDirect = 3;

constexpr vk::Flags usage = vk::BUFFER_USAGE_STORAGE_BUFFER_BIT | vk::BUFFER_USAGE_TRANSFER_SRC_BIT | vk::BUFFER_USAGE_TRANSFER_DST_BIT |
                            vk::BUFFER_USAGE_SHADER_DEVICE_ADDRESS_BIT | vk::BUFFER_USAGE_INDIRECT_BUFFER_BIT;

uint32_t memoryTypeFor(const Context& c, uint32_t bits, uint32_t kind) {
  int type = -1;
  if (kind == kindDevice) type = memoryType(c, bits, deviceLocal, vk::MEMORY_PROPERTY_HOST_VISIBLE_BIT);
  if (kind == kindReadback) type = memoryType(c, bits, hostVisible | hostCached, deviceLocal);
  if (kind == kindDirect) type = memoryType(c, bits, directMemory, hostCached);
  if (type < 0 && kind != kindDevice) type = memoryType(c, bits, hostVisible, deviceLocal);
  if (type < 0) type = memoryType(c, bits, kind == kindDevice ? 0 : hostVisible, 0);
  if (type < 0) throw Failure{"VULKAN_FEATURES", "no memory type fits"};
  return static_cast<uint32_t>(type);
}

vk::MemoryRequirements createHandle(Context& c, BufferObject& b, const void* next) {
  vk::BufferCreateInfo info{};
  info.pNext = next;
  info.size = b.size;
  info.usage = usage;
  c.check(c.fn.CreateBuffer(c.device, &info, nullptr, &b.buffer), "vkCreateBuffer");
  vk::MemoryRequirements needs{};
  c.fn.GetBufferMemoryRequirements(c.device, b.buffer, &needs);
  return needs;
}

// Allocates memory (`next`: more about it), binds it and asks for the device address.
void bindMemory(Context& c, BufferObject& b, vk::DeviceSize bytes, uint32_t type, const void* next) {
  vk::MemoryAllocateFlagsInfo flags{vk::STRUCTURE_TYPE_MEMORY_ALLOCATE_FLAGS_INFO, next, vk::MEMORY_ALLOCATE_DEVICE_ADDRESS_BIT, 0};
  vk::MemoryAllocateInfo info{vk::STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO, &flags, bytes, type};
  c.check(c.fn.AllocateMemory(c.device, &info, nullptr, &b.memory), "vkAllocateMemory");
  c.check(c.fn.BindBufferMemory(c.device, b.buffer, b.memory, 0), "vkBindBufferMemory");
  vk::BufferDeviceAddressInfo address{vk::STRUCTURE_TYPE_BUFFER_DEVICE_ADDRESS_INFO, nullptr, b.buffer};
  b.address = c.fn.GetBufferDeviceAddress(c.device, &address);
}

// Arguments (id, offset, typed array) of a copy between a mapped buffer and JavaScript.
template <class Copy>
Napi::Value copyMapped(Context& c, const Info& info, Copy copy) {
  c.requireDevice();
  auto b = c.bufferAt(uint32Argument(info[0], "buffer"));
  const uint64_t offset = integerArgument(info[1], "offset");
  const Bytes bytes = bytesArgument(info[2], "data");
  if (!b->mapped) throw Failure{"NOT_MAPPED", "the buffer's memory is not visible to the host"};
  b->requireRange(offset, bytes.size);
  if (bytes.size) copy(static_cast<uint8_t*>(b->mapped) + offset, bytes);
  return info.Env().Undefined();
}

}  // namespace

int memoryType(const Context& c, uint32_t bits, vk::Flags want, vk::Flags avoid) {
  constexpr vk::Flags known = deviceLocal | hostVisible | hostCached;
  for (const bool strict : {true, false}) {
    for (uint32_t i = 0; i < c.heaps.memoryTypeCount; i++) {
      const vk::Flags flags = c.heaps.memoryTypes[i].propertyFlags;
      if ((bits >> i & 1) && (flags & want) == want && !(flags & ~known) && !(strict && (flags & avoid))) return static_cast<int>(i);
    }
  }
  return -1;
}

BufferObject::~BufferObject() { context.drop(buffer, context.fn.DestroyBuffer), context.drop(memory, context.fn.FreeMemory); }

void BufferObject::requireRange(uint64_t offset, uint64_t bytes) const { if (offset > size || bytes > size - offset) throw Failure{"BAD_RANGE", std::to_string(bytes) + " bytes at " + std::to_string(offset) + " of a buffer of " + std::to_string(size)}; }

uint64_t Context::completedValue() {
  uint64_t value = 0;
  check(fn.GetSemaphoreCounterValue(device, timeline, &value), "vkGetSemaphoreCounterValue");
  return value;
}

void Context::collect() {
  if (inFlight.empty()) return;
  const uint64_t done = completedValue();
  for (; !inFlight.empty() && inFlight.front().busyUntil <= done; inFlight.pop_front())
    if (inFlight.front().buffer) freeBuffers.push_back(inFlight.front().buffer);
}

void Context::retire(std::shared_ptr<void> object) {
  inFlight.push_back({nullptr, submitted, {std::move(object)}});
  if (!lost) collect();
}

Napi::Value createBuffer(Context& c, const Info& info) {
  c.requireDevice();
  const uint64_t bytes = integerArgument(info[0], "bytes");
  const uint32_t kind = uint32Argument(info[1], "kind");
  if (kind > kindDirect) throw Failure{"BAD_ARGUMENT", "kind must be 0, 1, 2 or 3"};
  if (bytes == 0 || bytes > c.maxBufferSize) throw Failure{"BAD_RANGE", "a buffer has 1 to " + std::to_string(c.maxBufferSize) + " bytes, not " + std::to_string(bytes)};
  c.collect();
  auto b = std::make_shared<BufferObject>(c);
  b->size = bytes;
  const vk::MemoryRequirements needs = createHandle(c, *b, nullptr);
  uint32_t type = memoryTypeFor(c, needs.memoryTypeBits, kind);
  try {
    bindMemory(c, *b, needs.size, type, nullptr);
  } catch (const Failure& failure) {
    // Without resizable BAR there are only 256 MiB of direct memory.
    if (kind != kindDirect || failure.code != "OUT_OF_DEVICE_MEMORY") throw;
    type = memoryTypeFor(c, needs.memoryTypeBits, kindUpload);
    bindMemory(c, *b, needs.size, type, nullptr);
  }
  if ((c.heaps.memoryTypes[type].propertyFlags & hostVisible) == hostVisible)
    c.check(c.fn.MapMemory(c.device, b->memory, 0, vk::WHOLE_SIZE, 0, &b->mapped), "vkMapMemory");
  return number(c.env, remember(c.buffers, std::move(b)));
}

Napi::Value importHost(Context& c, const Info& info) {
  c.requireDevice();
  if (!c.importAlignment || !c.fn.GetMemoryHostPointerPropertiesEXT) throw Failure{"VULKAN_FEATURES", "the device cannot import host memory"};
  const Bytes bytes = bytesArgument(info[0], "memory");
  const uint64_t alignment = c.importAlignment;
  if (bytes.size == 0 || reinterpret_cast<uintptr_t>(bytes.data) % alignment || bytes.size % alignment)
    throw Failure{"BAD_RANGE", "imported memory must begin and end at multiples of " + std::to_string(alignment) + " bytes"};
  if (bytes.size > c.maxBufferSize) throw Failure{"BAD_RANGE", "more bytes than one buffer can have"};
  vk::MemoryHostPointerPropertiesEXT pointer{vk::STRUCTURE_TYPE_MEMORY_HOST_POINTER_PROPERTIES_EXT, nullptr, 0};
  c.check(c.fn.GetMemoryHostPointerPropertiesEXT(c.device, vk::EXTERNAL_MEMORY_HANDLE_TYPE_HOST_ALLOCATION_BIT_EXT, bytes.data, &pointer), "vkGetMemoryHostPointerPropertiesEXT");
  auto b = std::make_shared<BufferObject>(c);
  b->size = bytes.size;
  vk::ExternalMemoryBufferCreateInfo external{vk::STRUCTURE_TYPE_EXTERNAL_MEMORY_BUFFER_CREATE_INFO, nullptr, vk::EXTERNAL_MEMORY_HANDLE_TYPE_HOST_ALLOCATION_BIT_EXT};
  // Coherent: a submission sees what the host wrote before it, and the host what finished work wrote.
  const int type = memoryType(c, createHandle(c, *b, &external).memoryTypeBits & pointer.memoryTypeBits, hostVisible, 0);
  if (type < 0) throw Failure{"VULKAN_FEATURES", "no memory type fits"};
  vk::ImportMemoryHostPointerInfoEXT import{vk::STRUCTURE_TYPE_IMPORT_MEMORY_HOST_POINTER_INFO_EXT, nullptr, vk::EXTERNAL_MEMORY_HANDLE_TYPE_HOST_ALLOCATION_BIT_EXT, bytes.data};
  bindMemory(c, *b, bytes.size, static_cast<uint32_t>(type), &import);
  b->imported = Napi::ObjectReference::New(info[0].As<Napi::Object>(), 1);
  return number(c.env, remember(c.buffers, std::move(b)));
}

// Views of the buffer become empty at once; memory goes when all work submitted so far is done.
Napi::Value destroyBuffer(Context& c, const Info& info) {
  c.requireOpen();
  const uint32_t id = uint32Argument(info[0], "buffer");
  auto b = c.bufferAt(id);
  if (!b->view.IsEmpty()) {
    napi_detach_arraybuffer(c.env, b->view.Value());
    b->view.Reset();
  }
  c.buffers[id].reset();
  c.retire(std::move(b));
  return info.Env().Undefined();
}

Napi::Value bufferAddress(Context& c, const Info& info) {
  c.requireDevice();
  return Napi::BigInt::New(info.Env(), c.bufferAt(uint32Argument(info[0], "buffer"))->address);
}

Napi::Value mapBuffer(Context& c, const Info& info) {
  c.requireDevice();
  auto b = c.bufferAt(uint32Argument(info[0], "buffer"));
  if (!b->mapped) throw Failure{"NOT_MAPPED", "the buffer's memory is not visible to the host"};
  if (!b->view.IsEmpty()) return b->view.Value();
  napi_value view;
  const napi_status status = napi_create_external_arraybuffer(c.env, b->mapped, b->size, [](napi_env, void*, void*) {}, nullptr, &view);
  if (status != napi_ok) throw Failure{"NO_EXTERNAL_BUFFERS", "this runtime does not allow views of outside memory; use readBuffer and writeBuffer"};
  b->view = Napi::ObjectReference::New(Napi::Object(c.env, view), 1);
  return b->view.Value();
}

Napi::Value writeBuffer(Context& c, const Info& info) {
  return copyMapped(c, info, [](uint8_t* mapped, const Bytes& data) { std::memcpy(mapped, data.data, data.size); });
}

Napi::Value readBuffer(Context& c, const Info& info) {
  return copyMapped(c, info, [](const uint8_t* mapped, const Bytes& data) { std::memcpy(data.data, mapped, data.size); });
}
