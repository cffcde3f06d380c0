// Work that other threads (the HTTP servers) hand to the control thread, and wait for.
//
// Everything the control thread owns is touched by it alone; a handler runs here instead of locking.
#ifndef SLUICE_APP_TASK_QUEUE_H_
#define SLUICE_APP_TASK_QUEUE_H_

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>

namespace sluice::app {

class TaskQueue {
 public:
  TaskQueue();
  ~TaskQueue();
  TaskQueue(const TaskQueue&) = delete;
  TaskQueue& operator=(const TaskQueue&) = delete;

  // Any thread: returns when `task` has run; false when the queue was closed instead.
  bool Run(const std::function<void()>& task);

  // The control thread.
  int fd() const { return fd_; }  // readable when there is work
  void RunAll();
  // Nothing runs any more; whoever waits or comes later gets false.
  void Close();

 private:
  struct Task {
    const std::function<void()>* code;
    bool taken = false;  // runs or has run: its owner waits for `done`, closed or not
    bool done = false;
  };

  const int fd_;
  std::mutex mutex_;
  std::condition_variable finished_;
  std::deque<Task*> waiting_;
  bool closed_ = false;
};

}  // namespace sluice::app

#endif  // SLUICE_APP_TASK_QUEUE_H_
