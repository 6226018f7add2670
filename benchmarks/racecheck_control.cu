// Four handshakes by mbarriers, all of them right, below compute-sanitizer: which does racecheck complain about?
//
//     nvcc -arch=sm_90a -lineinfo -o control benchmarks/racecheck_control.cu
//     for mode in 0 1 2 3; do compute-sanitizer --tool racecheck ./control $mode; done
//
// A warp leaves a number in shared memory for 128 threads and does not write the next before they have read it. By
// PTX's memory model what a thread did before __syncwarp or bar.sync is ordered before the arrival, by one thread
// behind it, at an mbarrier, and so before whatever follows a wait for that mbarrier.
//
// mode 0: one thread writes and arrives, one waits, reads and arrives.
// mode 1: 32 threads write the same, synchronise, one arrives; 128 wait and read, synchronise, one arrives. This is what
//         Triton makes of a store, a load and an arrival in our kernels for Hopper.
// mode 2: as 1, but one thread alone writes.
// mode 3: as 1, but each of the 128 readers arrives.
//
// benchmarks/results/racecheck_h200.txt: no complaint about 0, complaints about 1, 2 and 3. So racecheck takes an mbarrier
// as an order between the threads that arrive and wait themselves, and not between others that a barrier ties to them.

#include <cstdio>
#include <cstdlib>

__device__ void arrive(unsigned barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

__device__ void wait(unsigned barrier, int phase) {
  asm volatile(
      "{\n .reg .pred done;\n"
      "again: mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      " @done bra.uni over;\n bra.uni again;\n"
      "over:\n}" ::"r"(barrier), "r"(phase) : "memory");
}

__global__ void pass_numbers(int *sum_of_them, int mode) {
  __shared__ unsigned long long barriers[2];
  __shared__ volatile int number;
  unsigned ready = __cvta_generic_to_shared(&barriers[0]), free_again = __cvta_generic_to_shared(&barriers[1]);
  if (threadIdx.x == 0) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(ready));
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(free_again), "r"(mode == 3 ? 128 : 1));
  }
  __syncthreads();
  if (threadIdx.x < 32) {
    for (int turn = 0; turn < 16; turn++) {
      if (mode == 0 && threadIdx.x) break;
      wait(free_again, (turn & 1) ^ 1);
      if (mode != 2 || threadIdx.x == 0) number = turn;
      if (mode) __syncwarp();
      if (threadIdx.x == 0) arrive(ready);
    }
  } else {
    int sum = 0;
    for (int turn = 0; turn < 16; turn++) {
      if (mode == 0 && threadIdx.x != 32) break;
      wait(ready, turn & 1);
      sum += number;
      if (mode == 3) {
        arrive(free_again);
        continue;
      }
      if (mode) asm volatile("bar.sync 1, 128;" ::: "memory");
      if (threadIdx.x == 32) arrive(free_again);
    }
    if (threadIdx.x == 32) *sum_of_them = sum;
  }
}

int main(int count, char **words) {
  int *on_device, sum;
  cudaMalloc(&on_device, sizeof(int));
  pass_numbers<<<1, 160>>>(on_device, count > 1 ? atoi(words[1]) : 0);
  cudaMemcpy(&sum, on_device, sizeof(int), cudaMemcpyDeviceToHost);
  printf("sum %d (120 is right), %s\n", sum, cudaGetErrorString(cudaGetLastError()));
}
