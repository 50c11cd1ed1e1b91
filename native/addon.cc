// Entry: exports the functions, turns failures into JavaScript errors with a code, closes the device when its environment ends.
#include <cmath>

#include "context.h"

Napi::Error codedError(Napi::Env env, const std::string& code, const std::string& message) {
  Napi::Error error = Napi::Error::New(env, message);
  error.Set("code", Napi::String::New(env, code));
  return error;
}

uint64_t integerArgument(const Napi::Value& value, const char* what) {
  const double x = value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : -1;
  if (!(x >= 0 && x <= 9007199254740991.0 && std::floor(x) == x)) throw Failure{"BAD_ARGUMENT", std::string(what) + " must be a non-negative integer"};
  return static_cast<uint64_t>(x);
}

uint32_t uint32Argument(const Napi::Value& value, const char* what) {
  const uint64_t x = integerArgument(value, what);
  if (x > UINT32_MAX) throw Failure{"BAD_ARGUMENT", std::string(what) + " must be below 2^32"};
  return static_cast<uint32_t>(x);
}

Bytes bytesArgument(const Napi::Value& value, const char* what) {
  napi_typedarray_type type;
  size_t length = 0, offset = 0;
  void* data = nullptr;
  napi_value buffer;
  if (!value.IsTypedArray() || napi_get_typedarray_info(value.Env(), value, &type, &length, &data, &buffer, &offset) != napi_ok)
    throw Failure{"BAD_ARGUMENT", std::string(what) + " must be a typed array"};
  return {static_cast<uint8_t*>(data), value.As<Napi::TypedArray>().ByteLength()};
}

Napi::Uint32Array wordsArgument(const Napi::Value& value, const char* what) {
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != napi_uint32_array) throw Failure{"BAD_ARGUMENT", std::string(what) + " must be a Uint32Array"};
  return value.As<Napi::Uint32Array>();
}

namespace {

using Function = Napi::Value (*)(Context&, const Info&);

// By plain calls whose failure does not matter: while the environment shuts down nothing can be thrown, and an exception in C++ would end the process.
Napi::Value raise(napi_env env, const std::string& code, const std::string& message) {
  napi_throw_error(env, code.c_str(), message.c_str());
  return {};
}

template <Function function>
Napi::Value guarded(const Info& info) {
  try {
    Context* context = info.Env().GetInstanceData<Context>();
    return context ? function(*context, info) : raise(info.Env(), "ENVIRONMENT_CLOSED", "the environment is shutting down");
  } catch (const Failure& failure) {
    return raise(info.Env(), failure.code, failure.message);
  } catch (const Napi::Error& error) {
    if (!error.IsEmpty()) napi_throw(info.Env(), error.Value());
    return {};
  } catch (const std::exception& error) {
    return raise(info.Env(), dynamic_cast<const std::bad_alloc*>(&error) ? "OUT_OF_HOST_MEMORY" : "INTERNAL", error.what());
  }
}

// Runs before the environment's threadsafe function is torn down: startWaiter adds it again after creating that.
void endEnvironment(void* data) {
  Context* context = static_cast<Context*>(data);
  try {
    context->close(false);
    if (context->waiter.deliver) napi_release_threadsafe_function(context->waiter.deliver, napi_tsfn_abort);
    context->waiter.deliver = nullptr;
  } catch (...) {}  // Nobody is left to tell.
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  Context* context = new Context(env);
  env.SetInstanceData(context);
  napi_add_env_cleanup_hook(env, endEnvironment, context);
#define X(name) exports.Set(#name, Napi::Function::New(env, guarded<name>, #name));
  EXPORTED(X)
#undef X
  return exports;
}

}  // namespace

void renewCleanup(Context& context) {
  napi_remove_env_cleanup_hook(context.env, endEnvironment, &context);
  napi_add_env_cleanup_hook(context.env, endEnvironment, &context);
}

NODE_API_MODULE(mlx_vk, init)
