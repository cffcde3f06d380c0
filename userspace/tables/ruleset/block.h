// Blocks of records, shared by versions of a set, and what elements of a set can own.
//
// Thread: control for everything but reading a block's bytes.
#ifndef SLUICE_TABLES_RULESET_BLOCK_H_
#define SLUICE_TABLES_RULESET_BLOCK_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

namespace sluice::tables {

struct ElementState;  // stateful.h

struct Block {
  uint32_t references = 0;
  uint32_t count = 0;
  uint32_t depth = 0;            // kExact: how many bits of the hash all records share
  std::vector<uint8_t> tags;     // kExact: a byte of each record's hash, padded to 16
  std::vector<uint8_t> records;  // count times the set's stride
  std::vector<std::shared_ptr<const ElementState>> states;  // of stateful sets, one per record
};

// A counted reference without atomics: one thread makes, copies and drops them.
template <class T>
class Ref {
 public:
  Ref() = default;
  explicit Ref(T* object) : object_(object) { ++object_->references; }
  Ref(const Ref& other) : object_(other.object_) {
    if (object_ != nullptr) ++object_->references;
  }
  Ref(Ref&& other) noexcept : object_(std::exchange(other.object_, nullptr)) {}
  Ref& operator=(Ref other) noexcept {
    std::swap(object_, other.object_);
    return *this;
  }
  ~Ref() {
    if (object_ != nullptr && --object_->references == 0) delete object_;
  }

  T* get() const { return object_; }
  T* operator->() const { return object_; }
  T& operator*() const { return *object_; }
  explicit operator bool() const { return object_ != nullptr; }
  bool operator==(const Ref& other) const { return object_ == other.object_; }

 private:
  T* object_ = nullptr;
};

}  // namespace sluice::tables

#endif  // SLUICE_TABLES_RULESET_BLOCK_H_
