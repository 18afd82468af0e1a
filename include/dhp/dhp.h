#pragma once

/// All of dhp's torch-free core; examples/cpp is a program that uses it. Names carry units (_s seconds, _bytes,
/// _tokens). Functions are pure unless they read a file, and may be called from several threads at once, except
/// add_peers(), which must be called first. Bad input is an InputError (error.h); a batch that no plan can hold is an
/// Infeasible (planner.h). std::invalid_argument and std::out_of_range are for arguments that no file can cause.

#include "dhp/analytic_cost.h"  // costs counted from a config.json
#include "dhp/batch.h"          // sequences of a step
#include "dhp/bound.h"          // seconds that no plan beats
#include "dhp/cluster.h"        // ranks and links
#include "dhp/cost_model.h"     // time and memory of tasks
#include "dhp/device.h"         // performance of a device
#include "dhp/error.h"          // InputError
#include "dhp/error_sizes.h"    // how far estimates are off
#include "dhp/explain.h"        // why a plan takes as long as it does
#include "dhp/internvl.h"       // tiles and frames of InternVL
#include "dhp/metrics.h"        // idle time, memory, peers; noise
#include "dhp/peers.h"          // peer planners; link dhp::peers
#include "dhp/plan.h"           // plans, their files, hash and checker
#include "dhp/plan_options.h"   // options of planners by name
#include "dhp/planner.h"        // plan_batch()
#include "dhp/presets.h"        // models, devices and clusters by name
#include "dhp/qwen_vl.h"        // patches and frames of Qwen-VL
#include "dhp/result.h"         // results of a run
#include "dhp/shard.h"          // which tokens a rank holds
#include "dhp/simulator.h"      // a plan's run in simulated time
#include "dhp/tokens.h"         // tokens of pictures and clips
#include "dhp/trace.h"          // simulations as Chrome traces
#include "dhp/workload.h"       // batches with the lengths of data sets
