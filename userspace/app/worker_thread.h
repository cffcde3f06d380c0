// The thread that a worker runs on: pinned, polling while there is work, asleep in poll() when there
// is none. It sleeps at once when a tick has found nothing: where the NIC's NAPI thread shares the
// core (veth), spinning would only keep it from delivering.
//
// The control thread talks to it by Call(): code that runs on the worker's thread between two
// ticks, while the caller waits.
//
// Thread: constructor, Start, Stop, Call: control. Run and below: its own.
#ifndef SLUICE_APP_WORKER_THREAD_H_
#define SLUICE_APP_WORKER_THREAD_H_

#include <poll.h>

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "app/served_port.h"
#include "dataplane/worker.h"
#include "packet/frame_pool.h"

namespace sluice::app {

class WorkerThread {
 public:
  using Worker = dataplane::Worker<ServedPort>;

  // `cpu`: where to pin it; none leaves it to the scheduler.
  WorkerThread(WorkerId id, std::optional<uint32_t> cpu, const packet::FrameArena& arena,
               const dataplane::Shared& shared, const dataplane::PipelineConfig& config);
  ~WorkerThread();
  WorkerThread(const WorkerThread&) = delete;
  WorkerThread& operator=(const WorkerThread&) = delete;

  void Start();
  void Stop();  // the loop ends after its current tick; frames stay where they are

  // Runs `code` on the worker's thread and waits for it. Before Start and after Stop it runs here.
  // A worker that does not come to it within kCallTimeout is stuck; its frames and ports cannot be
  // had back, so the process ends, and the kernel, which has the interfaces again, carries on.
  void Call(std::function<void(Worker&)> code);

  Worker& worker() { return *worker_; }  // from other threads: counters() and id() only
  const Worker& worker() const { return *worker_; }
  packet::FramePool& pool() { return pool_; }  // from other threads: size() only, while it runs
  std::optional<uint32_t> cpu() const { return cpu_; }
  bool sleeping() const { return sleeping_.load(std::memory_order_relaxed); }

  // On the worker's thread, in a Call: after ports have been added or removed.
  void PortsChanged();

 private:
  static constexpr Nanos kCallTimeout = Seconds(5);

  class EventFd final : public dataplane::Waker {
   public:
    EventFd();
    ~EventFd() override;
    void Wake() override;
    void Drain();
    int fd() const { return fd_; }

   private:
    const int fd_;
  };

  void Run();
  void Pin();
  void Sleep(Nanos now);

  const std::optional<uint32_t> cpu_;
  packet::FramePool pool_;
  EventFd wake_;
  std::unique_ptr<Worker> worker_;
  dataplane::Mailbox& mailbox_;
  tables::EpochDomain& epochs_;
  std::vector<pollfd> poll_set_;  // [0] is wake_, then the ports in worker order
  std::atomic<bool> stop_{false};
  std::atomic<bool> sleeping_{false};
  std::thread thread_;
};

}  // namespace sluice::app

#endif  // SLUICE_APP_WORKER_THREAD_H_
