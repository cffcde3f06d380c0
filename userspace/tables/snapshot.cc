#include "tables/snapshot.h"

#include <algorithm>

namespace sluice::tables {

void Ipv4AddressSet::Assign(std::vector<Ipv4> addresses) {
  sorted_ = std::move(addresses);
  std::sort(sorted_.begin(), sorted_.end());
  filter_ = 0;
  for (const Ipv4 a : sorted_) filter_ |= uint64_t{1} << (Hash(a) & 63);
}

bool Ipv4AddressSet::ContainsSlow(Ipv4 a) const {
  return std::binary_search(sorted_.begin(), sorted_.end(), a);
}

}  // namespace sluice::tables
