// Where the RIB puts its decisions: a table of route results and two FIBs. An interface, so that
// the RIB is tested without them and they without it; fib_sink.h connects the real ones.
//
// Threads: the control thread only.
#ifndef SLUICE_CONTROL_RIB_ROUTE_SINK_H_
#define SLUICE_CONTROL_RIB_ROUTE_SINK_H_

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/address.h"
#include "tables/route.h"
#include "tables/route_id.h"

namespace sluice::control {

class RouteSink {
 public:
  virtual ~RouteSink() = default;

  // One use of an id with this content, given back by one Remove. Equal contents may share an id.
  virtual absl::StatusOr<tables::RouteId> Add(const tables::Route& route) = 0;
  // New content for this user of `id`. When others share the id the answer is another id, and the
  // caller sets its prefixes anew; the use of `id` has then moved to the new id.
  virtual absl::StatusOr<tables::RouteId> Change(tables::RouteId id,
                                                 const tables::Route& route) = 0;
  virtual void Remove(tables::RouteId id) = 0;

  // Set inserts or overwrites.
  virtual absl::Status Set(const Ipv4Prefix& prefix, tables::RouteId id) = 0;
  virtual absl::Status Set(const Ipv6Prefix& prefix, tables::RouteId id) = 0;
  virtual void Clear(const Ipv4Prefix& prefix) = 0;
  virtual void Clear(const Ipv6Prefix& prefix) = 0;
};

}  // namespace sluice::control

#endif  // SLUICE_CONTROL_RIB_ROUTE_SINK_H_
