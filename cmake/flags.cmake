# Warnings are errors for developers and in CI, never for who builds it: tomorrow's compiler warns of more.
set(DHP_WERROR "$ENV{DHP_WERROR}" CACHE BOOL "Warnings are errors; the environment's DHP_WERROR is the default")

function(dhp_flags target)
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion
    $<$<BOOL:${DHP_WERROR}>:-Werror>
    # g++ 12 falsely sees it where a vector is assigned a list, and more so the more it inlines.
    $<$<AND:$<CXX_COMPILER_ID:GNU>,$<VERSION_LESS:$<CXX_COMPILER_VERSION>,13>>:-Wno-error=array-bounds>
    # It does not see what a lambda changes.
    $<$<CXX_COMPILER_ID:Clang>:-Wno-for-loop-analysis>)
endfunction()

if(DHP_FUZZ)
  set(DHP_SANITIZE address,undefined)
  add_compile_options(-fsanitize=fuzzer-no-link -D_GLIBCXX_ASSERTIONS)
endif()

# Sanitizers go on the whole tree: mixing instrumented and plain objects hides errors.
if(DHP_SANITIZE)
  add_compile_options(-fsanitize=${DHP_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all -O1 -g1)
  add_link_options(-fsanitize=${DHP_SANITIZE})
  add_compile_options($<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>)  # false with sanitizers, says GCC's manual
  if(DHP_SANITIZE MATCHES "thread")
    add_compile_options(-Wno-tsan)
  endif()
endif()

option(DHP_UNITY "Compile files together: half the time from scratch, half a minute more after an edit" ON)

# Files of one folder, at most 30 at a time; ALL: of all folders, where most of a unit is headers that all include.
# Names in unnamed namespaces must differ within a folder, or within the target.
function(dhp_unity target)
  if(NOT DHP_UNITY)
    return()
  endif()
  get_target_property(sources ${target} SOURCES)
  foreach(source IN LISTS sources)
    get_filename_component(folder ${source} DIRECTORY)
    file(RELATIVE_PATH folder ${PROJECT_SOURCE_DIR} ${folder})
    string(MAKE_C_IDENTIFIER "${folder}" group)
    if("ALL" IN_LIST ARGN)
      set(group all)
    endif()
    list(APPEND of_${group} ${source})
    list(LENGTH of_${group} count)
    math(EXPR part "${count} / 30")
    set_source_files_properties(${source} PROPERTIES UNITY_GROUP ${group}_${part})
  endforeach()
  set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_MODE GROUP)
endfunction()
