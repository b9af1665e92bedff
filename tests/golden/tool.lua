do

if mode() ~= "spider" then
    local root, prefix = "/sw/my modules/software/SAMtools/1.21", "/sw/my modules"
    read_site(prefix, root)

    -- the image: the module's own copy, else the one of that name and size in the site's image store
    local sif = ""
    if exists(root .. "/SAMtools-1.21.sif") then
        sif = root .. "/SAMtools-1.21.sif"
    elseif (filled(setting("image_store")) and has_image(setting("image_store") .. "/SAMtools-1.21.sif", 4096)) then
        sif = setting("image_store") .. "/SAMtools-1.21.sif"
    end
    local stored = "nothing else: the site has no image store"
    if filled(setting("image_store")) then
        stored = setting("image_store") .. "/SAMtools-1.21.sif (4096 bytes, not open to everybody)"
    end
    if not filled(sif) then
        fail("SAMtools/1.21: the image is gone", "  looked for  " .. root .. "/SAMtools-1.21.sif", "  and for     " .. stored, "hint: easysif image restore SAMtools/1.21 --prefix '/sw/my modules'")
    end

    -- names of this module alone, and the module of the runtime where the site has one
    if filled(setting("module_dependency")) then
        depend_on(setting("module_dependency"))
    end
    set("SIFSAMTOOLS", sif)
    set("RUNSCRIPTSSAMTOOLS", root .. "/runscripts")

    finish()
end
end
