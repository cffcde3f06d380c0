// The kernel's own answer to "which route for this address?": RTM_GETROUTE with RTM_F_FIB_MATCH,
// read here independently of control/netlink's parser.
#ifndef SLUICE_TESTS_SUPPORT_KERNEL_LOOKUP_H_
#define SLUICE_TESTS_SUPPORT_KERNEL_LOOKUP_H_

#include <string>

#include "base/address.h"
#include "tables/route.h"

namespace sluice::test {

// Both as text, to be compared and printed: the type, and for unicast the usable paths in order,
// as "oif/gateway/weight".
class KernelLookup {
 public:
  KernelLookup();
  ~KernelLookup();
  KernelLookup(const KernelLookup&) = delete;
  KernelLookup& operator=(const KernelLookup&) = delete;
  std::string Find(const IpAddress& address);

 private:
  int fd_;
};

// The same form for a route of the mirror; null is no route.
std::string Describe(const tables::Route* route);

}  // namespace sluice::test

#endif  // SLUICE_TESTS_SUPPORT_KERNEL_LOOKUP_H_
