#include "control/rib/fib_sink.h"

namespace sluice::control {

absl::StatusOr<tables::RouteId> FibSink::Add(const tables::Route& route) {
  return routes_.Intern(route);
}

absl::StatusOr<tables::RouteId> FibSink::Change(tables::RouteId id, const tables::Route& route) {
  if (routes_.uses(id) == 1) {
    if (absl::Status status = routes_.Replace(id, route); !status.ok()) return status;
    return id;
  }
  absl::StatusOr<tables::RouteId> other = routes_.Intern(route);
  if (other.ok()) routes_.Release(id);
  return other;
}

void FibSink::Remove(tables::RouteId id) { routes_.Release(id); }

absl::Status FibSink::Set(const Ipv4Prefix& prefix, tables::RouteId id) {
  return fib4_.Insert(prefix, id);
}

absl::Status FibSink::Set(const Ipv6Prefix& prefix, tables::RouteId id) {
  return fib6_.Insert(prefix, id);
}

void FibSink::Clear(const Ipv4Prefix& prefix) { fib4_.Erase(prefix); }

void FibSink::Clear(const Ipv6Prefix& prefix) { fib6_.Erase(prefix); }

}  // namespace sluice::control
