
proc es_plan {} {
    set root "/sw/my modules/software/PyTorch/2.7"
    set prefix "/sw/my modules"
    upvar #0 es_needed_path needed_path es_needed_libraries needed_libraries
    es_read_site $prefix $root

    # the image: the module's own copy, else the one of that name and size in the site's image store
    set sif ""
    if {[es_exists "${root}/x.sif"]} {
        set sif "${root}/x.sif"
    } elseif {([es_filled "[es_setting image_store]"] && [es_has_image "[es_setting image_store]/x.sif" 4096])} {
        set sif "[es_setting image_store]/x.sif"
    }
    set stored "nothing else: the site has no image store"
    if {[es_filled "[es_setting image_store]"]} {
        set stored "[es_setting image_store]/x.sif (4096 bytes, not open to everybody)"
    }
    if {![es_filled "${sif}"]} {
        es_fail "PyTorch/2.7: the image is gone" "  looked for  ${root}/x.sif" "  and for     ${stored}" "hint: easysif image restore PyTorch/2.7 --prefix '/sw/my modules'"
    }

    # the user's directory for this module: the prefix's own, or one's own where others installed
    set chosen ""
    if {([es_mine "${prefix}/easysif/prefix.json"] && [es_writable "${prefix}/easysif/prefix.json"])} {
        set chosen "${prefix}/overlays"
    } elseif {[es_filled "[es_env EASYSIF_OVERLAYS]"]} {
        set chosen "[es_env EASYSIF_OVERLAYS]"
    } elseif {[es_mine "${prefix}/easysif/prefix.json"]} {
        set chosen "${prefix}/overlays"
    } elseif {[es_filled "[es_setting overlays]"]} {
        set chosen "[es_setting overlays]"
    }
    set in_home ""
    if {(![es_filled "${chosen}"] && [es_filled "[es_env HOME]"])} {
        set in_home "[es_env HOME]/.local/share/easysif/overlays"
    }
    set overlays "${chosen}"
    if {[es_filled "${in_home}"]} {
        set overlays "${in_home}"
    }
    set containerroot ""
    if {([es_is_absolute "${overlays}"] && [es_bindable "${overlays}"])} {
        set containerroot "${overlays}/PyTorch/2.7"
    }

    # the overlay: the squashfs if it is whole and can be mounted, else the directory
    if {![es_filled "${containerroot}"]} {
        es_warn "PyTorch/2.7: there is no place for an overlay, packages cannot be added" "  path  ${overlays}" "hint: export EASYSIF_OVERLAYS=/<a directory>"
    }
    set state [es_look_at_squashfs "${containerroot}/user-software.squashfs"]
    if {[es_is_same "${state}" "damaged"]} {
        es_warn "PyTorch/2.7: user-software.squashfs is damaged and not used" "  file  ${containerroot}/user-software.squashfs" "hint: mv -- \"${containerroot}/user-software.squashfs\" \"${containerroot}/user-software.squashfs.damaged\""
    }
    if {([es_filled "${state}"] && ![es_is_same "${state}" "whole"] && ![es_is_same "${state}" "damaged"])} {
        es_warn "PyTorch/2.7: user-software.squashfs cannot be mounted by the container runtime here and is not used" "  file        ${containerroot}/user-software.squashfs" "  compressor  ${state}" "hint: unmake-squashfs && make-squashfs && module reload"
    }
    set packed ""
    if {[es_is_same "${state}" "whole"]} {
        set packed "${containerroot}/user-software.squashfs"
    }
    set first_use ""
    if {([es_filled "${in_home}"] && [es_filled "${containerroot}"] && ![es_exists "${containerroot}"])} {
        set first_use "yes"
    }
    set like ""
    if {[es_is_directory "${containerroot}"]} {
        set like "${containerroot}"
    } elseif {[es_is_same "${overlays}" "${prefix}/overlays"]} {
        set like "${prefix}"
    }
    if {([es_filled "${containerroot}"] && ![es_exists "${containerroot}/user-software.squashfs"])} {
        es_make_directory "${containerroot}/user-software" "${like}"
    }
    if {([es_filled "${first_use}"] && [es_is_directory "${containerroot}"])} {
        es_tell "PyTorch/2.7: the packages that you add go into your home directory, and count against its quota" "  directory  ${containerroot}" "hint: to have them elsewhere: export EASYSIF_OVERLAYS=/<a directory> && module reload"
    }
    set user_software ""
    if {[es_filled "${containerroot}"]} {
        set user_software "${containerroot}/user-software"
    }

    # what the overlay was made for
    set made_for [es_read_word "${containerroot}/made-for" "python"]
    set made_at [es_read_word "${containerroot}/made-for" "at"]
    set made_with [es_read_word "${containerroot}/made-for" "image"]
    set has_venv ""
    if {[es_filled "${packed}"]} {
        set has_venv "yes"
    } elseif {[es_exists "${containerroot}/user-software/venv/x"]} {
        set has_venv "yes"
    }
    set other_python ""
    if {([es_filled "${has_venv}"] && [es_filled "${made_for}"] && [es_filled "3.12"] && ![es_is_same "${made_for}" "3.12"])} {
        set other_python "${made_for} ${made_at}"
    } elseif {([es_filled "${has_venv}"] && [es_filled "${made_at}"] && [es_filled "/opt/conda/envs/x/bin/python3"] && ![es_is_same "${made_at}" "/opt/conda/envs/x/bin/python3"])} {
        set other_python "${made_for} ${made_at}"
    } elseif {(![es_filled "${packed}"] && [es_exists "${containerroot}/user-software/venv/x/pyvenv.cfg"] && ![es_exists "${containerroot}/user-software/venv/x/lib/python3.12"] && ![es_exists "${containerroot}/user-software/venv/x/lib/python3.12t"] && ![es_exists "${containerroot}/user-software/venv/x/lib/pypy3.12"])} {
        set other_python "other than 3.12"
    }
    set ways "easysif overlay rebuild PyTorch/2.7; or, to keep it as it is: rm -- \"${containerroot}/made-for\""
    if {[es_is_same "${other_python}" "other than 3.12"]} {
        set ways "easysif overlay rebuild PyTorch/2.7; or, to begin anew: mv -- \"${containerroot}/user-software\" \"${containerroot}/user-software.other\""
    }
    if {[es_filled "${other_python}"]} {
        es_warn "PyTorch/2.7: your packages are for another Python and are not used" "  made for       Python ${other_python}" "  the image has  Python 3.12 /opt/conda/envs/x/bin/python3" "  directory      ${containerroot}" "hint: ${ways}"
    }
    if {([es_is_loading] && ![es_filled "${other_python}"] && ([es_filled "${has_venv}"] && [es_filled "${made_with}"] && [es_filled "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"] && ![es_is_same "${made_with}" "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]))} {
        es_warn "PyTorch/2.7: your packages were made with another image" "  made with  ${made_with}" "  this one   sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" "  directory  ${containerroot}" "hint: easysif overlay rebuild PyTorch/2.7; or, to keep it as it is: rm -- \"${containerroot}/made-for\""
    }

    # beneath it, for reading: the overlay of those who installed the module, where it is another one
    set shared ""
    if {![es_is_same "${overlays}" "${prefix}/overlays"]} {
        set shared "${prefix}/overlays/PyTorch/2.7"
    }
    set shared_state [es_look_at_squashfs "${shared}/user-software.squashfs"]
    set shared_for [es_read_word "${shared}/made-for" "python"]
    set shared_packed ""
    if {(([es_filled "${shared}"] && !([es_filled "${shared_for}"] && ![es_is_same "${shared_for}" "3.12"])) && [es_is_same "${shared_state}" "whole"] && [es_readable "${shared}/user-software.squashfs"])} {
        set shared_packed "${shared}/user-software.squashfs"
    }
    set shared_directory ""
    if {(([es_filled "${shared}"] && !([es_filled "${shared_for}"] && ![es_is_same "${shared_for}" "3.12"])) && ![es_filled "${shared_packed}"] && [es_is_directory "${shared}/user-software"] && [es_readable "${shared}/user-software"])} {
        set shared_directory "${shared}/user-software"
    }

    # binds: runscripts and overlay, what the recipe, its needs and the site bind; only what this node has
    es_bind_each "FORCE"
    es_bind "${root}/runscripts" "/runscripts" ""
    if {[es_filled "${packed}"]} {
        es_bind "${packed}" "/user-software" "image-src=/,ro"
    }
    if {(![es_filled "${packed}"] && [es_is_directory "${user_software}"])} {
        es_bind "${user_software}" "/user-software" ""
    }
    if {[es_filled "${shared_packed}"]} {
        es_bind "${shared_packed}" "/shared-software" "image-src=/,ro"
    }
    if {[es_filled "${shared_directory}"]} {
        es_bind "${shared_directory}" "/shared-software" "ro"
    }
    set layer [es_look_at_squashfs "${root}/layer.squashfs"]
    if {![es_is_same "${layer}" "whole"]} {
        es_fail "PyTorch/2.7: its layer of Python packages is gone or damaged" "  file  ${root}/layer.squashfs" "hint: module unload PyTorch/2.7; eb --rebuild PyTorch-2.7.eb"
    }
    es_bind "${root}/layer.squashfs" "/layer" "image-src=/,ro"
    es_bind "/data" "/mnt" "ro"
    es_bind_each "amd-gpu"
    es_bind_each ""
    if {([es_filled "[es_env TMPDIR]"] && [es_bindable "[es_env TMPDIR]"])} {
        es_bind "[es_env TMPDIR]" "" ""
    }
    if {[es_filled "[es_setting ca_certificates]"]} {
        es_bind "[es_setting ca_certificates]" "" ""
    }
    es_push_binds

    # inside the image
    set shared_venv ""
    if {[es_filled "${shared_packed}${shared_directory}"]} {
        set shared_venv "/shared-software/venv/x"
    }
    set virtual_env "/layer/venv/x"
    if {![es_filled "${other_python}"]} {
        set virtual_env "/user-software/venv/x"
    } elseif {[es_filled "${shared_venv}"]} {
        set virtual_env "${shared_venv}"
    }
    set own_path ""
    if {![es_filled "${other_python}"]} {
        set own_path ":/user-software/venv/x/bin"
    }
    set venvs_path "${own_path}"
    if {[es_filled "${shared_venv}"]} {
        set venvs_path "${own_path}:/shared-software/venv/x/bin"
    }
    set path "/runscripts${venvs_path}:/layer/venv/x/bin:/opt/conda/envs/x/bin"
    if {([es_filled "[es_env APPTAINERENV_PREPEND_PATH]"] && [es_filled "[es_env SINGULARITYENV_PREPEND_PATH]"] && ![es_is_same "[es_env APPTAINERENV_PREPEND_PATH]" "[es_env SINGULARITYENV_PREPEND_PATH]"])} {
        set path "[es_env APPTAINERENV_PREPEND_PATH]:[es_env SINGULARITYENV_PREPEND_PATH]:/runscripts${venvs_path}:/layer/venv/x/bin:/opt/conda/envs/x/bin"
    } elseif {[es_filled "[es_env APPTAINERENV_PREPEND_PATH]"]} {
        set path "[es_env APPTAINERENV_PREPEND_PATH]:/runscripts${venvs_path}:/layer/venv/x/bin:/opt/conda/envs/x/bin"
    } elseif {[es_filled "[es_env SINGULARITYENV_PREPEND_PATH]"]} {
        set path "[es_env SINGULARITYENV_PREPEND_PATH]:/runscripts${venvs_path}:/layer/venv/x/bin:/opt/conda/envs/x/bin"
    }
    es_inside "PREPEND_PATH" "${path}"
    es_inside "PYTHONNOUSERSITE" "1"
    if {[es_filled "${virtual_env}"]} {
        es_inside "VIRTUAL_ENV" "${virtual_env}"
    }
    es_inside "CONDA_PREFIX" "/opt/conda/envs/x"
    es_inside "CONDA_DEFAULT_ENV" "x"
    if {([es_exists "[es_setting ca_certificates]"] && [es_is_unset "PIP_CERT"] && [es_is_unset "APPTAINERENV_PIP_CERT"] && [es_is_unset "SINGULARITYENV_PIP_CERT"])} {
        es_inside "PIP_CERT" "[es_setting ca_certificates]"
    }
    if {([es_exists "[es_setting ca_certificates]"] && [es_is_unset "SSL_CERT_FILE"] && [es_is_unset "APPTAINERENV_SSL_CERT_FILE"] && [es_is_unset "SINGULARITYENV_SSL_CERT_FILE"])} {
        es_inside "SSL_CERT_FILE" "[es_setting ca_certificates]"
    }
    if {([es_exists "[es_setting ca_certificates]"] && [es_is_unset "REQUESTS_CA_BUNDLE"] && [es_is_unset "APPTAINERENV_REQUESTS_CA_BUNDLE"] && [es_is_unset "SINGULARITYENV_REQUESTS_CA_BUNDLE"])} {
        es_inside "REQUESTS_CA_BUNDLE" "[es_setting ca_certificates]"
    }
    if {([es_exists "[es_setting ca_certificates]"] && [es_is_unset "CURL_CA_BUNDLE"] && [es_is_unset "APPTAINERENV_CURL_CA_BUNDLE"] && [es_is_unset "SINGULARITYENV_CURL_CA_BUNDLE"])} {
        es_inside "CURL_CA_BUNDLE" "[es_setting ca_certificates]"
    }
    if {([es_is_unset "PIP_CONSTRAINT"] && [es_is_unset "APPTAINERENV_PIP_CONSTRAINT"] && [es_is_unset "SINGULARITYENV_PIP_CONSTRAINT"])} {
        es_inside "PIP_CONSTRAINT" "/runscripts/lib/constraints.txt /etc/pip/\\\$constraint.txt"
    }
    if {(![es_is_unset "PIP_CONSTRAINT"] && ![es_filled "[es_env PIP_CONSTRAINT]"] && [es_is_unset "APPTAINERENV_PIP_CONSTRAINT"] && [es_is_unset "SINGULARITYENV_PIP_CONSTRAINT"])} {
        es_inside "PIP_CONSTRAINT" ""
    }
    if {([es_is_unset "UV_CONSTRAINT"] && [es_is_unset "APPTAINERENV_UV_CONSTRAINT"] && [es_is_unset "SINGULARITYENV_UV_CONSTRAINT"])} {
        es_inside "UV_CONSTRAINT" "/runscripts/lib/constraints-new.txt"
    }
    if {(![es_filled "${packed}"] && [es_is_directory "${user_software}"] && [es_is_unset "UV_CACHE_DIR"] && [es_is_unset "APPTAINERENV_UV_CACHE_DIR"] && [es_is_unset "SINGULARITYENV_UV_CACHE_DIR"])} {
        es_inside "UV_CACHE_DIR" "/user-software/.cache/uv"
    }
    es_inside_each ""
    es_inside_each "amd-gpu"
    es_inside "QUOTES" "\"it's \\\$5\""
    set append_path "${needed_path}"
    if {[es_filled "[es_env APPTAINERENV_APPEND_PATH]"]} {
        set append_path "[es_env APPTAINERENV_APPEND_PATH]:${needed_path}"
    } elseif {[es_filled "[es_env SINGULARITYENV_APPEND_PATH]"]} {
        set append_path "[es_env SINGULARITYENV_APPEND_PATH]:${needed_path}"
    }
    if {[es_filled "${needed_path}"]} {
        es_inside "APPEND_PATH" "${append_path}"
    }
    set ld_library_path "${needed_libraries}"
    if {[es_filled "[es_env APPTAINERENV_LD_LIBRARY_PATH]"]} {
        set ld_library_path "[es_env APPTAINERENV_LD_LIBRARY_PATH]:${needed_libraries}"
    } elseif {[es_filled "[es_env SINGULARITYENV_LD_LIBRARY_PATH]"]} {
        set ld_library_path "[es_env SINGULARITYENV_LD_LIBRARY_PATH]:${needed_libraries}"
    }
    if {[es_filled "${needed_libraries}"]} {
        es_inside "LD_LIBRARY_PATH" "${ld_library_path}"
    }
    es_inside_each "FORCE"
    es_push "SINGULARITY_ROCM" "1"
    es_push "APPTAINER_ROCM" "1"

    # names of this module alone, and the module of the runtime where the site has one
    if {[es_filled "[es_setting module_dependency]"]} {
        es_depend_on "[es_setting module_dependency]"
    }
    es_set "SIFPYTORCH" "${sif}"
    es_set "RUNSCRIPTSPYTORCH" "${root}/runscripts"

    # names that every environment module sets
    es_family "easysif_environment"
    es_push "SIF" "${sif}"
    es_push "CONTAINERROOT" "${containerroot}"
    es_push "RUNSCRIPTS" "${root}/runscripts"
    es_push "USER_SOFTWARE" "${user_software}"
    es_push "WITH_CONDA" ". /runscripts/init-conda"
    es_inside "WITH_CONDA" ". /runscripts/init-conda"
    es_push "WITH_VENV" ". /runscripts/init-venv"
    es_inside "WITH_VENV" ". /runscripts/init-venv"
    es_push "WITH_CONDA_VENV" ". /runscripts/init-conda-venv"
    es_inside "WITH_CONDA_VENV" ". /runscripts/init-conda-venv"

    # EasyBuild keeps its Python although this module wraps python3
    set eb_python "/opt/eb/bin/python"
    if {[es_filled "[es_env EB_PYTHON]"]} {
        set eb_python "[es_env EB_PYTHON]"
    }
    es_push "EB_PYTHON" "${eb_python}"

    es_finish
}

if {[es_mode] ne {}} { es_plan }
