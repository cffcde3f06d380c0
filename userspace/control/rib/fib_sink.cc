#include "control/rib/fib_sink.h"

namespace sluice::control {

absl::StatusOr<tables::RouteId> FibSink::Add(const tables::Route& route) {
  return routes_.Intern(route);
}

absl::StatusOr<tables::RouteId> FibSink::Change(tables::RouteId id, const tables::Route& route) {
  if (routes_.uses(id) == 1) {
    if (absl::Status status = routes_.Replace(id, route); !status.ok()) return status;
    tables::BumpWorld(offload_);  // any number of prefixes may lead there
    return id;
  }
  absl::StatusOr<tables::RouteId> other = routes_.Intern(route);
  if (other.ok()) routes_.Release(id);
  return other;
}

void FibSink::Remove(tables::RouteId id) { routes_.Release(id); }

absl::Status FibSink::Set(const Ipv4Prefix& prefix, tables::RouteId id) {
  const absl::Status status = fib4_.Insert(prefix, id);
  tables::BumpRoute(offload_, prefix);
  return status;
}

absl::Status FibSink::Set(const Ipv6Prefix& prefix, tables::RouteId id) {
  const absl::Status status = fib6_.Insert(prefix, id);
  tables::BumpRoute(offload_, prefix);
  return status;
}

void FibSink::Clear(const Ipv4Prefix& prefix) {
  fib4_.Erase(prefix);
  tables::BumpRoute(offload_, prefix);
}

void FibSink::Clear(const Ipv6Prefix& prefix) {
  fib6_.Erase(prefix);
  tables::BumpRoute(offload_, prefix);
}

}  // namespace sluice::control
