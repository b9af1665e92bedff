
proc es_plan {} {
    set root "/sw/my modules/software/SAMtools/1.21"
    set prefix "/sw/my modules"
    upvar #0 es_needed_path needed_path es_needed_libraries needed_libraries
    es_read_site $prefix $root

    # the image: the module's own copy, else the one of that name and size in the site's image store
    set sif ""
    if {[es_exists "${root}/SAMtools-1.21.sif"]} {
        set sif "${root}/SAMtools-1.21.sif"
    } elseif {([es_filled "[es_setting image_store]"] && [es_has_image "[es_setting image_store]/SAMtools-1.21.sif" 4096])} {
        set sif "[es_setting image_store]/SAMtools-1.21.sif"
    }
    set stored "nothing else: the site has no image store"
    if {[es_filled "[es_setting image_store]"]} {
        set stored "[es_setting image_store]/SAMtools-1.21.sif (4096 bytes, not open to everybody)"
    }
    if {![es_filled "${sif}"]} {
        es_fail "SAMtools/1.21: the image is gone" "  looked for  ${root}/SAMtools-1.21.sif" "  and for     ${stored}" "hint: easysif image restore SAMtools/1.21 --prefix '/sw/my modules'"
    }

    # names of this module alone, and the module of the runtime where the site has one
    if {[es_filled "[es_setting module_dependency]"]} {
        es_depend_on "[es_setting module_dependency]"
    }
    es_set "SIFSAMTOOLS" "${sif}"
    es_set "RUNSCRIPTSSAMTOOLS" "${root}/runscripts"

    es_finish
}

if {[es_mode] ne {}} { es_plan }
